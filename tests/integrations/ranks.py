"""A program for ``accelerate launch``: train with Trainer, and print a digest of every rank's weights.

ranks.py FOLDER METHOD...
"""

import hashlib
import os
import sys

import torch
from transformers import TrainingArguments

from dpstune.device.hardware import part_from_the_other_ranks
from dpstune.integrations.transformers import MethodTrainer
from tests.tiny import tiny_classifier

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
rows = [
    {
        "input_ids": torch.randint(5, 30, (8,), generator=generator),
        "attention_mask": torch.ones(8).long(),
        "labels": n % 2,
    }
    for n in range(32)
]
for name in sys.argv[2:]:
    model = tiny_classifier()
    arguments = TrainingArguments(
        output_dir=sys.argv[1],
        use_cpu=True,
        ddp_backend="gloo",
        ddp_find_unused_parameters=False,
        per_device_train_batch_size=4,
        max_steps=4,
        learning_rate=1e-2,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = MethodTrainer(model, arguments, train_dataset=rows, method={"name": name})
    trainer.train()
    if name == "lora":  # whose weights are others in a second training
        trainer.train()
    content = b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())
    line = f"RANK {os.environ['RANK']} {name} {hashlib.sha256(content).hexdigest()}\n"
    os.write(1, line.encode())  # in one piece: both ranks write into the same pipe
part_from_the_other_ranks()
