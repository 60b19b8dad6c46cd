"""A signal that comes at a chosen moment of a run."""

from dpstune.training.loop import Loop

SIGTERM = 15


def stop_within_an_evaluation(patch, after_step):
    """Have a signal come within the evaluation after a step, for as long as ``patch`` holds."""
    evaluate = Loop.evaluate

    def evaluate_and_stop(loop):
        if loop.state.step == after_step:
            loop.watch.received = SIGTERM
        return evaluate(loop)

    patch.setattr(Loop, "evaluate", evaluate_and_stop)
