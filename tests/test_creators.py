"""Creators: dated roles, fans, notes."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from liveroom.creators import CreatorChange, Creators, NewCreator, NewNote, NoteChange
from liveroom.errors import Invalid
from liveroom.store import tables


def test_roles_are_dated_and_never_overwritten(run, db):
    """A role that is left ends on record; taken up again, it is a new row."""

    async def story():
        creators = Creators(db)
        made = await creators.create(NewCreator(id="c1", name="Lin", roles=["buyer", "clerk"]))
        assert (made.roles, made.followers) == (["buyer", "clerk"], 0)
        assert (await creators.change("c1", CreatorChange(roles=["manager"]))).roles == ["manager"]
        again = await creators.change("c1", CreatorChange(roles=["buyer"], name="Xia"))
        assert (again.roles, again.name) == (["buyer"], "Xia")
        held = tables.creator_roles
        rows = await db.read(
            lambda conn: conn.execute(select(held.c.role, held.c.until.is_(None))).all()
        )
        assert {role for role, is_open in rows if is_open} == {"buyer"}
        assert {role for role, _ in rows} == {"buyer", "clerk", "manager"}

    run(story())


def test_following_twice_is_following_once(run, db):
    """A fan is counted once, however often the button is pressed."""

    async def story():
        creators = Creators(db)
        await creators.create(NewCreator(id="c1", name="Lin"))
        await creators.follow("c1", "u1")
        await creators.follow("c1", "u1")
        assert (await creators.follow("c1", "u2")).followers == 2
        with pytest.raises(Invalid, match="not_found"):
            await creators.follow("nobody", "u1")

    run(story())


def test_notes_belong_to_their_creator(run, db):
    """A note is written by a creator, listed under the creator, and can be changed in part."""

    async def story():
        creators = Creators(db)
        for creator in ("c1", "c2"):
            await creators.create(NewCreator(id=creator, name=creator))
        note = NewNote(id="n1", creator="c1", title="Summer", text="linen", products=["p1"])
        await creators.write_note(note)
        await creators.write_note(NewNote(creator="c2", title="Other", text="x"))
        changed = await creators.change_note("n1", NoteChange(needs=["cool"]))
        assert (changed.title, changed.products, changed.needs) == ("Summer", ["p1"], ["cool"])
        listed = await creators.notes(creator="c1", after=None, limit=10)
        assert [one.id for one in listed.items] == ["n1"]
        assert len((await creators.notes(creator=None, after=None, limit=10)).items) == 2
        with pytest.raises(Invalid, match="not_found"):
            await creators.write_note(NewNote(creator="nobody", title="x", text="y"))

    run(story())


def test_lists_count_fans_and_roles_for_each(run, db):
    """A list tells of each creator what showing it alone tells."""

    async def story():
        creators = Creators(db)
        for number in range(3):
            await creators.create(NewCreator(id=f"c{number}", name="x", roles=["buyer"]))
        await creators.follow("c1", "u1")
        page = await creators.creators(after=None, limit=10)
        assert page.items == [await creators.show(one.id) for one in page.items]
        assert page.next is None

    run(story())
