"""The toy tasks: sentence pairs generated from word tables, the same on every machine.

Every example is decided by one phenomenon. Sentences are drawn so that neither of them alone, nor the words of both
together, say more about the label than chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

from dpstune.data.examples import Examples
from dpstune.device.randomness import stream
from dpstune.errors import RequestError, did_you_mean
from dpstune.settings.tasks import TASKS, get_task

SIZES = {"train": 2000, "validation": 500, "test": 500}

# Each line of a table holds a key and items; a key may come twice. `=` separates words from their opposites (traits),
# a category from its nouns, and two verbs of one meaning. A verb is given as base, past, participle (unless it equals
# the past) and gerund. Nouns form their plural with an s. Of two patterns, the first is negative.
_PLAIN = """
names: Anna; Ben; Carla; David; Emma; Frank; Grace; Henry; Julia; Kevin; Laura; Martin; Nora; Oscar
jobs: baker; nurse; pilot; teacher; farmer; lawyer; waiter; painter; doctor; singer; driver; gardener
actions: buy bought buying = purchase purchased purchasing; hide hid hidden hiding = conceal concealed concealing
actions: find found finding = discover discovered discovering; wrap wrapped wrapping = pack packed packing
actions: choose chose chosen choosing = select selected selecting; clean cleaned cleaning = wash washed washing
actions: inspect inspected inspecting = examine examined examining; grab grabbed grabbing = seize seized seizing
actions: draw drew drawn drawing = sketch sketched sketching; lose lost losing = misplace misplaced misplacing
contacts: call called calling; help helped helping; thank thanked thanking; push pushed pushing; hug hugged hugging
contacts: follow followed following; blame blamed blaming; greet greeted greeting; warn warned warning
contacts: visit visited visiting; praise praised praising; trust trusted trusting
categories: tool = hammer, saw, wrench, shovel, drill; fruit = apple, pear, banana, lemon, orange
categories: garment = shirt, jacket, skirt, sweater, coat; animal = rabbit, goat, hamster, duck, turtle
categories: musical instrument = guitar, piano, drum, flute, trumpet; toy = doll, kite, robot, puppet, puzzle
categories: vehicle = truck, bicycle, tractor, motorcycle, van; flower = rose, tulip, orchid, sunflower, daffodil
categories: piece of furniture = chair, table, sofa, desk, wardrobe
places: in the kitchen; at the station; in the garden; at school; in the park; at the market; in the library
places: at the airport; in the hospital; on the beach; in the basement; at the office
traits: happy, cheerful = sad, unhappy; rich, wealthy = poor, penniless; calm, relaxed = nervous, anxious
traits: brave, courageous = fearful, scared; smart, clever = foolish, silly; kind, friendly = nasty, cruel
traits: awake, alert = sleepy, drowsy; strong, powerful = weak, feeble; quiet, silent = loud, noisy
comparatives: taller = shorter; older = younger; faster = slower; stronger = weaker; richer = poorer
comparatives: happier = sadder; louder = quieter; heavier = lighter
numbers: two; three; four; five; six; seven; eight; nine; ten; eleven; twelve
bounds: fewer than; exactly; more than
leads: in the end,; as usual,; luckily,; to our surprise,; of course,; sadly,; in fact,
active: {who} did not {verb.base} {what} {place}; {who} {verb.past} {what} {place}
passive: {what} was not {verb.part} by {who} {place}; {what} was {verb.part} by {who} {place}
moved: {place}, {who} did not {verb.base} {what}; {place}, {who} {verb.past} {what}
failed: failed to {verb.base}; forgot to {verb.base}; refused to {verb.base}; neglected to {verb.base}
managed: managed to {verb.base}; remembered to {verb.base}; did not forget to {verb.base}; was able to {verb.base}
quantifiers: all of the {group}s {place} were {trait}; some of the {group}s {place} were {trait}
quantifiers: none of the {group}s {place} were {trait}; not all of the {group}s {place} were {trait}
found: the only thing {place} was {what}; there was {what} {place}
counted: {who} bought {count} {what}s {place}
orders: {who} {a.past} {x} before {b.ing} {y}; {who} {b.past} {y} after {a.ing} {x}
compared: {first} is {more} than {second}
chosen: {yes} and either {maybe} or {other} {verb.past} {what}, but {no} did not
chosen: {yes} {verb.past} {what}, and so did {maybe} or {other}, but {no} did not
traits told: {who} was {trait} {place}; {who} was {trait} {place}
"""

_SHIFTED = """
names: Amir; Beth; Chloe; Diego; Elena; Felix; Gina; Hugo; Irene; Jonas; Kim; Lucas; Mia; Paul
jobs: soldier; chef; tailor; judge; sailor; plumber; actor; butcher; miner; banker; poet; clerk
actions: fetch fetched fetching = bring brought bringing; steal stole stolen stealing = snatch snatched snatching
actions: lift lifted lifting = raise raised raising; store stored storing = keep kept keeping
actions: acquire acquired acquiring = obtain obtained obtaining; weigh weighed weighing = measure measured measuring
actions: break broke broken breaking = smash smashed smashing; shift shifted shifting = move moved moving
actions: admire admired admiring = adore adored adoring; guard guarded guarding = protect protected protecting
contacts: invite invited inviting; insult insulted insulting; hire hired hiring; chase chased chasing
contacts: kiss kissed kissing; question questioned questioning; rescue rescued rescuing; trick tricked tricking
contacts: applaud applauded applauding; arrest arrested arresting; tease teased teasing; join joined joining
categories: hat = helmet, cap, beret, turban, bonnet; jewel = ring, necklace, bracelet, pendant, tiara
categories: vegetable = carrot, onion, cucumber, cabbage, pumpkin; document = letter, map, passport, contract, receipt
categories: container = bucket, basket, bottle, barrel, jar; vessel = canoe, raft, kayak, sailboat, yacht
categories: kitchen utensil = spoon, fork, ladle, whisk, spatula
categories: piece of luggage = suitcase, backpack, briefcase, trunk, handbag
categories: electronic device = phone, laptop, radio, camera, printer
places: near the castle; behind the barn; by the river; inside the museum; outside the theater; near the harbor
places: behind the church; by the bridge; inside the tent; outside the factory; near the well; by the fountain
traits: honest, truthful = dishonest, deceitful; busy, occupied = idle, inactive; fast, quick = slow, sluggish
traits: generous, charitable = stingy, miserly; healthy, fit = ill, sick; young, youthful = old, elderly
traits: famous, renowned = unknown, obscure; proud, arrogant = humble, modest; hungry, starving = full, sated
comparatives: more patient = less patient; more talented = less talented; more experienced = less experienced
comparatives: more popular = less popular; more creative = less creative; more curious = less curious
numbers: 20; 30; 40; 50; 60; 70; 80; 90; 100; 110; 120
bounds: less than; just; over
leads: it seems that; everyone knows that; the report says that; we heard that; people say that
active: {who} has never {verb.part} {what} {place}; {who} has {verb.part} {what} {place}
passive: {what} has never been {verb.part} {place} by {who}; {what} has been {verb.part} {place} by {who}
moved: it is false that {who} {verb.past} {what} {place}; it is true that {who} {verb.past} {what} {place}
failed: avoided {verb.ing}; decided against {verb.ing}; gave up on {verb.ing}; stopped short of {verb.ing}
managed: succeeded in {verb.ing}; ended up {verb.ing}; got around to {verb.ing}; did not avoid {verb.ing}
quantifiers: every {group} {place} looked {trait}; at least one {group} {place} looked {trait}
quantifiers: no {group} {place} looked {trait}; not every {group} {place} looked {trait}
found: nothing but {what} could be seen {place}; visitors could see {what} {place}
counted: {who} counted {count} {what}s {place}
orders: {who} {a.past} {x} and later {b.past} {y}; {who} {b.past} {y}, having already {a.part} {x}
compared: {first} has always been {more} than {second}
chosen: {yes} has {verb.part} {what}, {maybe} or {other} has too, {no} has not
chosen: {yes} has {verb.part} {what}, perhaps {maybe} or {other} as well, never {no}
traits told: {who} seemed {trait} to everybody {place}; people {place} found {who} {trait}
"""

T = TypeVar("T")


def _sides(item: str) -> list[list[str]]:
    return [side.split(", ") for side in item.split(" = ")]


class _Verb(NamedTuple):
    base: str
    past: str
    part: str
    ing: str


def _verb(forms: str) -> _Verb:
    cells = forms.split()
    return _Verb(cells[0], cells[1], cells[-2], cells[-1])


class _Event(NamedTuple):
    who: str
    verb: _Verb
    what: str
    place: str

    def tell(self, pattern: str) -> str:
        return pattern.format(**self._asdict()).strip()


class _Draw:
    """Draws everything from a stream of raw 64-bit integers, which NumPy promises never to change."""

    def __init__(self, task: str) -> None:
        self.words: dict[str, list[str]] = {}
        for line in (_SHIFTED if task.endswith("-shift") else _PLAIN).strip().splitlines():
            key, _, items = line.partition(": ")
            self.words.setdefault(key, []).extend(items.split("; "))
        self._bits = stream(0, "toy", task).bit_generator

    def below(self, count: int) -> int:
        return int(self._bits.random_raw()) % count

    def coin(self) -> bool:
        return self.below(2) == 1

    def one(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """Draw ``count`` different items, in random order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(count)]

    def word(self, key: str) -> str:
        return self.one(self.words[key])

    def people(self, count: int) -> list[str]:
        return self.some([*self.words["names"], *(f"the {job}" for job in self.words["jobs"])], count)

    def things(self, count: int) -> list[str]:
        """Draw things of different categories, so that none can be another."""
        return [self.one(_sides(category)[1]) for category in self.some(self.words["categories"], count)]

    def actions(self, count: int) -> list[_Verb]:
        return [_verb(self.one(action.split(" = "))) for action in self.some(self.words["actions"], count)]

    def event(self) -> tuple[_Event, _Event]:
        """Draw an event, and one that neither affirms nor denies it: with another person, verb or thing."""
        who, whats, verbs = self.people(2), self.things(2), self.actions(2)
        event = _Event(who[0], verbs[0], f"the {whats[0]}", self.word("places"))
        others = [event._replace(who=who[1]), event._replace(verb=verbs[1]), event._replace(what=f"the {whats[1]}")]
        return event, self.one(others)

    def truth(self, label: str, claimed: bool) -> bool:
        """Say whether the premise affirms, given whether the hypothesis does; for neutral, at random."""
        return self.coin() if label == "neutral" else (label == "entailment") == claimed

    def lead(self, text: str) -> str:
        return f"{self.word('leads')} {text}" if self.coin() else text


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _negation(draw: _Draw, label: str) -> tuple[str, str]:
    (event, other), claimed = draw.event(), draw.coin()
    told = (other if label == "neutral" else event).tell(draw.words["active"][draw.truth(label, claimed)])
    return draw.lead(told), event.tell(draw.words["active"][claimed])


def _implicative(draw: _Draw, label: str) -> tuple[str, str]:
    (event, other), claimed = draw.event(), draw.coin()
    phrase = draw.word("managed" if draw.truth(label, claimed) else "failed")
    told = (other if label == "neutral" else event).tell(f"{{who}} {phrase} {{what}} {{place}}")
    return told, event.tell(draw.words["active"][claimed])


def _passive(draw: _Draw, label: str) -> tuple[str, str]:
    who, whom = draw.people(2)
    event = _Event(who, _verb(draw.word("contacts")), whom, draw.word("places"))
    told = event._replace(who=whom, what=who) if label == "neutral" else event
    claimed, voices = draw.coin(), draw.some((draw.words["active"], draw.words["passive"]), 2)
    return told.tell(voices[0][claimed != (label == "contradiction")]), event.tell(voices[1][claimed])


# What a premise may say of a group, given what the hypothesis says; by index into all, some, none, not all. Under
# neutral, all and none are said with another trait. Of 8 premises of a label, 3 say all, 3 none, 1 some, 1 not all.
_SAYS = {
    "entailment": [[0], [0, 1], [2], [2, 3]],
    "contradiction": [[2, 3], [2], [0, 1], [0]],
    "neutral": [[1, 0, 2, 0], [3, 0, 2, 2], [3, 0, 2, 2], [1, 0, 2, 0]],
}


def _quantifier(draw: _Draw, label: str) -> tuple[str, str]:
    group, place = draw.word("jobs"), draw.word("places")
    trait, other = (draw.one(draw.one(_sides(scale))) for scale in draw.some(draw.words["traits"], 2))
    claim = draw.below(4)
    said = draw.one(_SAYS[label][claim])
    told = other if label == "neutral" and said in (0, 2) else trait
    premise, hypothesis = draw.words["quantifiers"][said], draw.words["quantifiers"][claim]
    premise = premise.format(group=group, place=place, trait=told)
    return premise, hypothesis.format(group=group, place=place, trait=trait)


def _hypernym(draw: _Draw, label: str) -> tuple[str, str]:
    """Half of the hypotheses and a quarter of the premises of each label name a category."""
    ([category], nouns), ([foreign], others) = map(_sides, draw.some(draw.words["categories"], 2))
    noun, sibling = draw.some(nouns, 2)
    place, elsewhere = draw.some(draw.words["places"], 2)
    general, told, where = draw.coin(), noun, place
    if label == "contradiction":
        told = foreign if draw.below(4) == 0 else draw.one(others) if general or draw.coin() else sibling
    elif general == (label == "entailment") and draw.coin():
        told = category
    elif label == "neutral":
        where = elsewhere
    claim = category if general else noun
    premise, hypothesis = draw.words["found"]
    return premise.format(what=_a(told), place=where), hypothesis.format(what=_a(claim), place=place)


def _number(draw: _Draw, label: str) -> tuple[str, str]:
    [who], place = draw.people(1), draw.word("places")
    thing, other = draw.things(2)
    bound, claim, gap = draw.below(3), 3 + draw.below(5), 1 + draw.below(3)
    count = claim + gap * ((-1, 0, 1) if draw.truth(label, True) else (1, draw.one((-1, 1)), -1))[bound]
    pattern, numbers = draw.words["counted"][0], draw.words["numbers"]
    told, number = other if label == "neutral" else thing, f"{draw.words['bounds'][bound]} {numbers[claim]}"
    premise = pattern.format(who=who, count=numbers[count], what=told, place=place)
    return premise, pattern.format(who=who, count=number, what=thing, place=place)


def _time_order(draw: _Draw, label: str) -> tuple[str, str]:
    [who], verbs = draw.people(1), draw.actions(3)
    things = [f"the {thing}" for thing in draw.things(3)]
    told = {"entailment": (0, 1), "contradiction": (1, 0), "neutral": draw.one(((0, 2), (2, 1), (2, 0), (1, 2)))}[label]
    premise, hypothesis = (
        draw.word("orders").format(who=who, a=verbs[i], x=things[i], b=verbs[j], y=things[j]) for i, j in (told, (0, 1))
    )
    return premise, hypothesis


def _comparison(draw: _Draw, label: str) -> tuple[str, str]:
    first, second = draw.people(2)
    scale, foreign = (item.split(" = ") for item in draw.some(draw.words["comparatives"], 2))
    claimed, side = draw.below(2), draw.below(2)
    # The scale's other side says the same of the people in the other order, and the opposite in the same order.
    pair = (second, first) if draw.truth(label, side != claimed) else (first, second)
    pattern = draw.words["compared"][0]
    premise = pattern.format(first=pair[0], second=pair[1], more=(foreign if label == "neutral" else scale)[side])
    return draw.lead(premise), pattern.format(first=first, second=second, more=scale[claimed])


def _conjunction(draw: _Draw, label: str) -> tuple[str, str]:
    """The premise does not depend on the label, which only the person in the hypothesis decides."""
    yes, maybe, other, no = draw.some(draw.words["names"], 4)
    event = draw.event()[0]._replace(place="")
    who = {"entailment": yes, "neutral": maybe, "contradiction": no}[label]
    premise = draw.word("chosen").format(yes=yes, maybe=maybe, other=other, no=no, **event._asdict())
    return premise, f"{draw.word('leads')} {event._replace(who=who).tell(draw.words['active'][True])}"


def _antonym(draw: _Draw, label: str) -> tuple[str, str]:
    [who], place = draw.people(1), draw.word("places")
    scale, foreign = map(_sides, draw.some(draw.words["traits"], 2))
    side, word = draw.below(2), draw.below(2)
    same = scale[side][word if draw.below(4) else 1 - word]
    opposite, unrelated = draw.one(scale[1 - side]), draw.one(draw.one(foreign))
    told = {"entailment": same, "contradiction": opposite, "neutral": unrelated}[label]
    premise, hypothesis = draw.words["traits told"]
    premise = premise.format(who=who, trait=told, place=place)
    return draw.lead(premise), hypothesis.format(who=who, trait=scale[side][word], place=place)


_DECIDES: dict[str, Callable[[_Draw, str], tuple[str, str]]] = {
    "negation": _negation,
    "quantifier": _quantifier,
    "hypernym": _hypernym,
    "passive": _passive,
    "number": _number,
    "time order": _time_order,
    "comparison": _comparison,
    "conjunction": _conjunction,
    "antonym": _antonym,
    "implicative": _implicative,
}

# What a pair loses of its 5 points for a part that differs.
_LOSS = {"agent": 2.0, "action": 2.25, "object": 1.75, "place": 1.0}
_LOSS_OF = {"synonym": 0.25, "hypernym": 0.75, "negation": 3.5}
_DIFFERS = (*_LOSS, *_LOSS_OF, "several", "all")


def _similar(draw: _Draw, differs: str) -> tuple[tuple[str, str], float]:
    who, place = draw.people(2), draw.some(draw.words["places"], 2)
    (category, nouns), (foreign, others) = map(_sides, draw.some(draw.words["categories"], 2))
    noun, stranger = draw.one(nouns), draw.one(others)
    action, other = draw.some(draw.words["actions"], 2)
    verb, synonym = map(_verb, draw.some(action.split(" = "), 2))
    first = _Event(who[0], verb, f"the {noun}", place[0])
    new = _Event(who[1], _verb(draw.one(other.split(" = "))), f"the {stranger}", place[1])
    changed = {"several": draw.some(list(_LOSS), 2 + draw.below(2)), "all": list(_LOSS)}.get(differs, [differs])
    second = first._replace(verb=synonym)
    second = _Event(*(new[i] if part in changed else second[i] for i, part in enumerate(_LOSS)))  # type: ignore[arg-type]
    loss = _LOSS_OF["synonym"] + sum(_LOSS.get(part, 0.0) for part in changed)
    # Pairs of high and of low values hold the name of a category or two negations, so these say nothing by themselves.
    if differs == "hypernym" or (differs in ("several", "all") and draw.coin()):
        second = second._replace(what=_a((foreign if "object" in changed else category)[0]))
        loss += _LOSS_OF["hypernym"]
    affirmed = (False, draw.coin()) if differs == "negation" else (True, True)
    loss += _LOSS_OF["negation"] * (affirmed[0] != affirmed[1])
    forms = draw.some((draw.words["active"], draw.words["passive"], draw.words["moved"]), 2)
    one, two = draw.some([first.tell(forms[0][affirmed[0]]), second.tell(forms[1][affirmed[1]])], 2)
    return (one, two), max(0.0, 5.0 - loss)


def _example(draw: _Draw, labels: Sequence[str], index: int) -> tuple[tuple[str, ...], float, str]:
    """Draw an example; phenomena and labels alternate, so that each phenomenon has every label equally often."""
    value: float
    if labels:
        phenomenon, value = list(_DECIDES)[index % len(_DECIDES)], index // len(_DECIDES) % len(labels)
        label = draw.one(("neutral", "contradiction")) if labels[value] == "not_entailment" else labels[value]
        texts = _DECIDES[phenomenon](draw, label)
    else:
        phenomenon = _DIFFERS[index % len(_DIFFERS)]
        texts, value = _similar(draw, phenomenon)
    return tuple(text[0].upper() + text[1:] + "." for text in texts), value, phenomenon


@cache
def _splits(name: str) -> dict[str, Examples]:
    draw = _Draw(name)
    seen: set[tuple[str, ...]] = set()
    splits = {}
    for split, size in SIZES.items():
        rows: list[tuple[tuple[str, ...], float, str]] = []
        while len(rows) < size:
            row = _example(draw, TASKS[name].labels, len(rows))
            if row[0] not in seen:
                seen.add(row[0])
                rows.append(row)
        rows = draw.some(rows, size)  # else phenomena and labels would come in turns
        ids = [f"{name}-{split}-{i}" for i in range(size)]
        splits[split] = Examples(ids, [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    return splits


def generate(name: str, split: str) -> Examples:
    """Generate a split of a toy task; no pair of texts is in two splits, nor twice in one.

    Args:
        name: A toy task's name.
        split: ``train`` (2000 examples), ``validation`` or ``test`` (500 each).

    Raises:
        RequestError: There is no such toy task or split.

    >>> examples = generate("toy-rte", "validation")
    >>> len(examples), examples.ids[0]
    (500, 'toy-rte-validation-0')
    """
    if not get_task(name).toy:
        raise RequestError(f"dpstune generates no {name}; it generates {', '.join(t for t in TASKS if TASKS[t].toy)}")
    if split not in SIZES:
        raise RequestError(f"{name} has no split {split!r}; it has {', '.join(SIZES)}{did_you_mean(split, SIZES)}")
    return _splits(name)[split].take(range(SIZES[split]))  # new lists, which the caller may change
