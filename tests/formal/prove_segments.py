"""The table of segments: what it says of every beat, pass after pass, under any stall and after any new layout."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, Mux, Value

from kappa_rtl.golden.config import ThrottleConfig
from support.mutants import Mutant

from .harness import Harness, Proof, component


def table(package: str, lanes: int, entries: int, capacity: int, scale_max: int) -> Harness:
    """A table that does not turn, a segment and a place in it say what each tag must be; the ring holds the same, turned.

    The host writes it between two passes, when nothing is wanted, and a pass is wanted of one whose first entry has elements.
    """
    layout = [{"elements": lanes + 1, "scale": scale_max}, {"elements": lanes}, {"elements": 1, "scale": 1}][:entries]
    config = ThrottleConfig(
        elements=sum(one["elements"] for one in layout),
        eta=0.5,
        lanes=lanes,
        segments=layout,
        entries=entries,
        capacity=capacity,
        scale_max=scale_max,
    )
    dut = component(package, "units.segments").Table(config)
    h = Harness(dut)
    m, inside = h.m, h.internal
    entry, bits = component(package, "units.segments").entry_layout(config), config.room.bit_length()
    first = [{"elements": one.elements, "scale": one.scale} for one in config.segments]
    kept: list[Any] = [h.ghost(entry, f"kept{k}", init=init) for k, init in enumerate(first)]
    elements, scales = Array(one.elements for one in kept), Array(one.scale for one in kept)
    pushed = dut.entries.valid & dut.entries.ready
    with m.If(pushed):
        m.d.sync += [one.eq(after) for one, after in zip(kept, [*kept[1:], dut.entries.payload], strict=True)]

    # What the next tag to be taken is of.
    segment, place = h.ghost(range(entries + 1), "segment"), h.ghost(bits + 1, "place")
    tag, taken = dut.tags.payload, dut.tags.valid & dut.tags.ready
    rest = elements[segment] - place
    ends = rest <= lanes
    last = ends & ((segment == entries - 1) | (elements[segment + 1 if entries > 1 else 0] == 0))
    with m.If(taken):
        m.d.sync += [segment.eq(Mux(last, 0, segment + ends)), place.eq(Mux(ends, 0, place + lanes))]
    under_way = dut.tags.valid | (segment != 0) | (place != 0) | ~h.state("HOME")
    h.assume(~dut.entries.valid | ~(under_way | dut.wanted))
    h.assume(~dut.wanted | (kept[0].elements != 0))

    h.claim(
        "a tag is of the lanes beyond its segment", tag.outside == Cat(rest <= lane for lane in range(lanes)), when=dut.tags.valid
    )
    h.claim("the last beat of the last segment is the last", tag.last == last, when=dut.tags.valid)
    h.claim("a tag has the shift of its segment", tag.shift == scale_max - scales[segment], when=dut.tags.valid)
    h.keeps(dut.tags, "tags")
    waits = h.ghost(range(entries + 6), "waits")
    m.d.sync += waits.eq(Mux(dut.wanted & ~dut.tags.valid, Mux(waits == entries + 5, waits, waits + 1), 0))
    h.claim("the first tag comes when the table is back", waits <= entries + 3)

    # The ring: the same entries, the one at the front told by where home is; and what is left of its segment.
    home, left, ring = inside["home"], inside["left"], [entry(inside[f"entry{k}"]) for k in range(entries)]
    turned = Array(Cat(Value.cast(kept[(k + turn) % entries]) for k in range(entries)) for turn in range(entries))
    front = h.ghost(range(entries), "front")  # which entry is at the front
    m.d.comb += front.eq(sum(Mux(home[(entries - turn) % entries], turn, 0) for turn in range(1, entries)) if entries > 1 else 0)
    h.lemma("a state", h.state("HOME") | h.state("PASS") | h.state("BACK"))
    h.lemma("one entry is home", (home & (home - 1)[:entries]) == 0)
    h.lemma("home", home != 0)
    h.lemma("the ring holds the table", Cat(Value.cast(one) for one in ring) == turned[front])
    h.lemma("home is where it waits", home[0], when=h.state("HOME"))
    held = dut.tags.valid
    follows = Mux(ends, Mux(last, 0, segment + 1), segment)  # the segment of the tag after the one that is held
    left_then = Mux(ends, elements[follows], rest - lanes)
    h.lemma("a pass that waits", (segment == 0) & (place == 0), when=~held & ~h.state("PASS"))
    h.lemma("a pass under way", (front == segment) & (left == rest[: len(left)]), when=h.state("PASS") & ~held)
    h.lemma("after the tag that is held", (front == follows) & (left == left_then[: len(left)]), when=h.state("PASS") & held)
    h.lemma("behind the last tag", last, when=held & ~h.state("PASS"))
    h.lemma("what is left", left != 0, when=h.state("PASS"))
    h.lemma("inside of a segment", (place < elements[segment]) | ((segment == 0) & (place == 0)))
    h.lemma("an entry in use", (kept[0].elements != 0), when=under_way)
    back = Mux(front == 0, entries, front)  # turns since the pass was over, at most
    h.lemma("waited for the table", waits <= back, when=h.state("BACK") & ~held)
    h.lemma("waited at home", waits <= entries + 1, when=h.state("HOME") & ~held)
    h.lemma("waited for the tag", waits <= entries + 2, when=h.state("PASS") & ~held)
    h.lemma("ahead of the pass", left == kept[0].elements, when=h.past(h.state("HOME") & ~pushed, "waiting") & h.state("PASS"))
    return h


MUTANTS = (
    Mutant("units/segments.py", "ends = left <= lanes", "ends = left < lanes", "a full last beat is followed by an empty one"),
    Mutant("units/segments.py", "else few for lane", "else 0 for lane", "the last lane is never beyond a segment"),
    Mutant(
        "units/segments.py",
        "((following.elements == 0) | home[1 % count])",
        "(following.elements == 0)",
        "a full table never ends",
    ),
    Mutant(
        "units/segments.py",
        "((following.elements == 0) | home[1 % count])",
        "home[1 % count]",
        "entries that are not in use have beats",
    ),
    Mutant("units/segments.py", "with m.If(home[0]):", "with m.If(1):", "the next pass begins where this one ended"),
    Mutant(
        "units/segments.py", "made.shift.eq(config.scale_max - front.scale)", "made.shift.eq(front.scale)", "a shift is the scale"
    ),
    Mutant("units/segments.py", "with m.If(~held | self.tags.ready):", "with m.If(1):", "a tag that waits is lost"),
    Mutant(
        "units/segments.py", "m.d.sync += left.eq(front.elements)", "m.d.sync += left.eq(left)", "a new table is seen a pass late"
    ),
    Mutant(
        "units/segments.py", "m.d.sync += ring[-1].eq(incoming)", "m.d.sync += ring[-1].eq(ring[0])", "a new entry is an old one"
    ),
)

PROOFS = [
    Proof(
        f"table of segments, {entries} entries, {lanes} lane{'s' if lanes > 1 else ''}",
        "a tag for every beat of every segment, any layout, any stalls; stream; cycles",
        lambda package, args=(lanes, entries, capacity, scale_max): table(package, *args),
        depth=2,
        mutants=MUTANTS if (entries, lanes) == (3, 2) else (),
        small=lambda package: table(package, 2, 3, 7, 3),
        depth_mutants=16,
    )
    for entries, lanes, capacity, scale_max in ((3, 2, 7, 3), (3, 8, 1000, 7), (2, 1, 6, 1))
]
