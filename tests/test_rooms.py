"""Rooms: their rows, what is told of them, and the picture a joiner gets."""

from __future__ import annotations

import pytest

from liveroom.arguments import fitting
from liveroom.auth import Member
from liveroom.catalog import Catalog, NewProduct, NewShop, ProductChange
from liveroom.clock import ManualClock
from liveroom.creators import CreatorChange, Creators, NewCreator
from liveroom.errors import Invalid, Refused, Unavailable
from liveroom.events import Event
from liveroom.ids import new_id
from liveroom.moderation import Moderation, SlowMode, refuse_unless_may_speak
from liveroom.onair import COMPARE_BEATS, OnAir
from liveroom.rooms import NewRoom, RoomChange, Rooms, refuse_unless_selling
from liveroom.store import keys, partitions, scripts, tables
from liveroom.store.backplane import Backplane, Item

ANN = Member("u1", "Ann")


class House:
    """Catalog, rooms and a node's rooms on air, over real stores."""

    def __init__(self, db, url):
        self.db = db
        self.clock = ManualClock()
        self.clients = scripts.connect(url), scripts.connect(url)
        self.backplane = Backplane(*self.clients, self.clock)
        self.catalog, self.creators = Catalog(db), Creators(db)
        self.rooms = Rooms(db, self.backplane, self.clock)
        self.gates = {}
        self.asked = []
        self.away = False
        self.onair = OnAir(
            self.rooms, self.backplane, self.clock, node="n1", left=self.left, drops=self.drops
        )
        self.passed = []

    async def left(self, pools):
        if self.away:
            raise Unavailable("store_down")
        self.asked.append(set(pools))
        return {pool: self.gates[pool] for pool in pools if pool in self.gates}

    async def drops(self, _room):
        return []

    # what the hub lends
    def state(self, room, event):
        self.passed.append((room, event.data))
        self.onair.shown(room).apply(event)

    def viewers(self, room):
        return 7 if room == "r1" else 0

    async def __aenter__(self):
        await self.db.write(lambda conn: partitions.prepare(conn, 1))
        await self.catalog.create_shop(NewShop(id="s1", name="Linen"))
        await self.creators.create(NewCreator(id="c1", name="Lin"))
        for product in ("p1", "p2", "p3", "p4"):
            sku = {"id": f"{product}.m", "price_minor": 100, "stock": 5}
            body = {"id": product, "shop": "s1", "title": product, "currency": "CNY", "skus": [sku]}
            await self.catalog.create_product(fitting(body, NewProduct))
        shelf = ["p1", "p2", "p3", "p4"]
        await self.rooms.create(NewRoom(id="r1", title="Friday", host="c1", shop="s1", shelf=shelf))
        self.onair.attach(self)
        return self

    async def __aexit__(self, *exc):
        await self.backplane.close()
        for client in self.clients:
            await client.aclose()

    async def told(self, since=0):
        """The names of the logged events after a seq."""
        position = (await self.backplane.room_state("r1")).position
        events = await self.backplane.read("r1", position._replace(seq=since))
        return [(event.name, event.data) for event in events]


@pytest.fixture
def house(db, redis_url):
    return lambda: House(db, redis_url)


def test_room_goes_through_its_states_once(run, house):
    """A room is planned, live, closed; any other move is illegal and changes nothing."""

    async def story():
        async with house() as h:
            planned = await h.rooms.show("r1")
            assert (planned.state, planned.host_name, planned.v) == ("planned", "Lin", 1)
            with pytest.raises(Invalid, match="illegal_transition"):
                await h.rooms.close("r1")
            live = await h.rooms.open("r1")
            assert (live.state, live.v, live.opened_at is None) == ("live", 2, False)
            with pytest.raises(Invalid, match="illegal_transition"):
                await h.rooms.open("r1")
            assert (await h.rooms.close("r1")).state == "closed"
            assert [name for name, _ in await h.told()] == ["room.opened", "room.closed"]

    run(story())


def test_a_room_shows_its_host_as_of_now(run, house):
    """A new name or role reaches open rooms with their next `v`, and closed ones not at all."""

    async def story():
        async with house() as h:
            await h.rooms.create(NewRoom(id="r2", title="Then", host="c1"))
            await h.rooms.open("r2")
            await h.rooms.close("r2")
            await h.creators.change("c1", CreatorChange(name="Xia", roles=["manager", "buyer"]))
            await h.rooms.host_changed("c1")
            [(name, data)] = await h.told()
            told = data["room"]
            assert (name, told["v"], told["host_name"]) == ("room.changed", 2, "Xia")
            assert told["host_roles"] == ["buyer", "manager"]
            listed = (await h.rooms.rooms(state=None, after=None, limit=9)).items
            assert [(one.id, one.v, one.host_roles) for one in listed] == [
                ("r1", 2, ["buyer", "manager"]),
                ("r2", 3, ["buyer", "manager"]),
            ]
            await h.creators.change("c1", CreatorChange(roles=[]))
            await h.rooms.host_changed("c1")
            assert "host_roles" not in (await h.told())[-1][1]["room"]

    run(story())


def test_a_changed_product_reaches_the_rooms_that_show_it(run, house):
    """The shelf is told with the room's next `v`; the pin stays where it is and shows the new."""

    async def story():
        async with house() as h:
            await h.rooms.create(NewRoom(id="r2", title="Then", host="c1", shelf=["p1"]))
            await h.rooms.open("r2")
            await h.rooms.close("r2")
            await h.rooms.pin("r1", "p1")
            picture = await h.onair.picture("r1")
            before = picture.pins
            new = ProductChange(title="New", picture="/new.svg")
            await h.rooms.tell_shelves((await h.catalog.change_product("p1", new)).rooms)
            [(name, data)] = await h.told(since=1)
            assert (name, data["v"], data["shelf"][0]["title"]) == ("shelf.changed", 2, "New")
            picture.apply(Event(name, data, h.clock.now_ms(), seq=2))
            for shown in (picture, await h.onair.draw("r1")):
                assert [(one["title"], one["picture"]) for one in shown.pinned] == [
                    ("New", "/new.svg")
                ]
                assert (shown.v, shown.pins) == (2, before)
            assert (await h.rooms.show("r2")).v == 3

    run(story())


def test_a_changed_product_that_nobody_told_reaches_the_room(run, house):
    """A node that dies between the change and its telling leaves it to the beat of another."""

    async def story():
        async with house() as h:
            await h.onair.picture("r1")
            await h.catalog.change_product("p1", ProductChange(title="New"))
            for _ in range(COMPARE_BEATS):
                await h.onair.beat()
            told = dict(await h.told())
            assert told["shelf.changed"]["shelf"][0]["title"] == "New"
            await h.catalog.change_product("p1", ProductChange())
            assert (await h.rooms.show("r1")).v == 2

    run(story())


def test_a_role_that_nobody_told_reaches_the_room(run, house):
    """A node that dies between a new role and its telling leaves it to the beat of another."""

    async def story():
        async with house() as h:
            picture = await h.onair.picture("r1")
            await h.creators.change("c1", CreatorChange(roles=["clerk"]))
            for _ in range(COMPARE_BEATS):
                await h.onair.beat()
            position = (await h.backplane.room_state("r1")).position
            for event in await h.backplane.read("r1", position._replace(seq=picture.seq)):
                picture.apply(event)
            assert (await h.onair.room("r1")).host_roles == ["clerk"]

    run(story())


def test_settings_change_and_the_rest_stays(run, house):
    """`room.set` changes what it names; a stream can be taken away again."""

    async def story():
        async with house() as h:
            stream = {"kind": "hls", "url": "https://x.example/live.m3u8"}
            await h.rooms.set("r1", fitting({"stream": stream, "slow_mode_s": 3}, RoomChange))
            room = await h.rooms.set("r1", fitting({"members_only": True}, RoomChange))
            assert (room.slow_mode_s, room.members_only, room.stream.kind) == (3, True, "hls")
            room = await h.rooms.set("r1", fitting({"stream": None, "title": "T"}, RoomChange))
            assert (room.stream, room.title, room.slow_mode_s) == (None, "T", 3)

    run(story())


@pytest.mark.parametrize("same", [{}, {"bogus": 1}, {"title": "T"}, {"slow_mode_s": 3}])
def test_settings_that_change_nothing_are_no_change(run, house, same):
    """`v` stays where only unknown fields are named, or values that are there already."""

    async def story():
        async with house() as h:
            change = fitting({"slow_mode_s": 3, "title": "T"}, RoomChange)
            room = await h.rooms.set("r1", change)
            assert await h.rooms.set("r1", fitting(same, RoomChange)) == room

    run(story())


@pytest.mark.parametrize(
    "change",
    [
        {"slow_mode_s": -1},
        {"chat_per_s_max": 1.5},
        {"guests": "yes"},
        {"title": ""},
        {"stream": {"kind": "hls", "url": "javascript:alert(1)"}},
        {"stream": {"kind": "x", "url": "https://x"}},
    ],
)
def test_settings_that_do_not_fit_are_bad_arguments(change):
    """Bounds and kinds are checked before anything is changed."""
    with pytest.raises(Invalid, match="bad_argument"):
        fitting(change, RoomChange)


def test_room_needs_its_parts(run, house):
    """A room of an unknown shop or with an unknown product is not made at all."""

    async def story():
        async with house() as h:
            for parts in ({"shop": "nowhere"}, {"shelf": ["p1", "nothing"]}):
                with pytest.raises(Invalid, match="not_found"):
                    await h.rooms.create(
                        fitting({"id": "r2", "title": "x", "host": "c1"} | parts, NewRoom)
                    )
                with pytest.raises(Invalid, match="not_found"):
                    await h.rooms.show("r2")
            with pytest.raises(Invalid, match="id_reused"):
                await h.rooms.create(NewRoom(id="r1", title="x", host="c1"))

    run(story())


def test_live_rooms_are_listed_first(run, house):
    """The list shows live rooms, then planned, then closed ones, page by page."""

    async def story():
        async with house() as h:
            for number in range(4):
                await h.rooms.create(NewRoom(id=f"x.{number}", title="x", host="c1"))
            for room in ("x.0", "x.1"):
                await h.rooms.open(room)
            await h.rooms.close("x.0")
            seen, after = [], None
            while True:
                page = await h.rooms.rooms(state=None, after=after, limit=2)
                seen += [(room.id, room.state) for room in page.items]
                if (after := page.next) is None:
                    break
            assert seen[0] == ("x.1", "live")
            assert seen[-1] == ("x.0", "closed")
            assert sorted(room for room, _ in seen) == ["r1", "x.0", "x.1", "x.2", "x.3"]
            assert [
                r.id for r in (await h.rooms.rooms(state="live", after=None, limit=9)).items
            ] == ["x.1"]
            with pytest.raises(Invalid, match="bad_argument"):
                await h.rooms.rooms(state=None, after="0.x.y", limit=2)

    run(story())


def test_shelf_is_ordered_and_hides_what_is_off(run, house):
    """A product is put at its place, moved, shown, hidden and taken away."""

    async def story():
        async with house() as h:

            def ids(shelf):
                return [(p.id, p.position, p.state) for p in shelf]

            moved = await h.rooms.put("r1", "p4", position=1, state=None)
            assert [p.id for p in moved] == ["p4", "p1", "p2", "p3"]
            shelf = await h.rooms.put("r1", "p1", position=None, state="visible")
            assert ids(shelf)[1] == ("p1", 2, "visible")
            shelf = await h.rooms.put("r1", "p4", position=None, state="off")
            assert [p.id for p in shelf] == ["p1", "p2", "p3"]
            shelf = await h.rooms.take("r1", "p2")
            assert [p.id for p in shelf] == ["p1", "p3"]
            with pytest.raises(Invalid, match="not_found"):
                await h.rooms.take("r1", "p2")
            with pytest.raises(Invalid, match="not_found"):
                await h.rooms.put("r1", "nothing", position=None, state=None)
            name, data = (await h.told())[-1]
            assert (name, [p["id"] for p in data["shelf"]]) == ("shelf.changed", ["p1", "p3"])

    run(story())


def test_fourth_pin_takes_the_first_down(run, house):
    """At most three are pinned; pins follow the shelf and are remembered in SQL."""

    async def story():
        async with house() as h:
            for product in ("p1", "p2", "p3", "p4"):
                await h.rooms.pin("r1", product)
            assert [name for name, _ in await h.told(3)] == ["product.unpinned", "product.pinned"]
            assert list((await h.rooms.facts("r1")).pinned) == ["p2", "p3", "p4"]
            await h.rooms.take("r1", "p3")
            assert list((await h.rooms.facts("r1")).pinned) == ["p2", "p4"]
            await h.rooms.unpin("r1", "p2")
            with pytest.raises(Invalid, match="not_found"):
                await h.rooms.unpin("r1", "p2")
            with pytest.raises(Invalid, match="not_found"):
                await h.rooms.pin("r1", "p3")
            await h.rooms.unpin_all("r1")
            assert list((await h.rooms.facts("r1")).pinned) == []

    run(story())


def test_a_pin_is_named_by_its_place_in_the_log(run, house):
    """Picture, log and SQL name a SKU's pin alike: the position of the event that began it."""

    async def story():
        async with house() as h:
            picture = await h.onair.picture("r1")
            names = []
            for step in (
                h.rooms.pin("r1", "p1"),
                h.rooms.unpin("r1", "p1"),
                h.rooms.pin("r1", "p1"),
            ):
                await step
                position = (await h.backplane.room_state("r1")).position
                since = position._replace(seq=picture.seq)
                for event in await h.backplane.read("r1", since):
                    picture.apply(event)
                drawn, known = await h.onair.draw("r1"), await h.rooms.facts("r1")
                assert picture.pins == drawn.pins == known.pins
                names.append(picture.pins.get("p1.m"))
            assert names == [f"{picture.epoch}:1", None, f"{picture.epoch}:3"]
            for product in ("p2", "p3", "p4"):
                await h.rooms.pin("r1", product)
            await h.rooms.take("r1", "p2")
            kept = await h.clients[0].hkeys(keys.room_log("r1"))
            assert {key for key in kept if key.startswith(b"p:")} == {b"p:p3", b"p:p4"}

    run(story())


def test_a_pin_of_an_older_release_has_no_name(run, house):
    """Where Redis kept no place of a pin, the product is pinned all the same."""

    async def story():
        async with house() as h:
            await h.rooms.pin("r1", "p1")
            await h.clients[0].hdel(keys.room_log("r1"), "p:p1")
            picture = await h.onair.draw("r1")
            assert [p["id"] for p in picture.snapshot()["pinned"]] == ["p1"]
            assert picture.pins == {}

    run(story())


def test_pins_come_back_after_the_log_is_lost(run, house):
    """When Redis forgot everything, the next picture has the pins that SQL remembers."""

    async def story():
        async with house() as h:
            await h.rooms.pin("r1", "p1")
            await h.rooms.pin("r1", "p2")
            before = (await h.onair.draw("r1")).epoch
            await h.clients[0].flushall()
            picture = await h.onair.draw("r1")
            assert picture.epoch != before
            assert [p["id"] for p in picture.snapshot()["pinned"]] == ["p1", "p2"]
            again = await h.onair.draw("r1")
            assert (again.epoch, again.seq) == (picture.epoch, picture.seq)

    run(story())


def test_picture_folds_what_is_told(run, house):
    """A picture that heard every event equals one that is drawn anew."""

    async def story():
        async with house() as h:
            h.gates = {"sku:p1.m": (5, 10), "sku:p9.m": (1, 1)}
            picture = await h.onair.picture("r1")
            await h.rooms.open("r1")
            await h.rooms.pin("r1", "p1")
            await h.rooms.pin("r1", "p2")
            await h.rooms.set_price("p1.m", 250)
            await h.rooms.tell_price("p1.m")
            await h.rooms.put("r1", "p3", position=1, state="visible")
            first = await h.rooms.say("r1", ANN, "one", None)
            second = await h.rooms.say("r1", ANN, "two", None)
            await h.rooms.unsay("r1", first["id"])
            position = (await h.backplane.room_state("r1")).position
            for said in (first, second):
                picture.apply(Event("message.posted", said, 0, n=said["n"]))
            for event in await h.backplane.read("r1", position._replace(seq=0)):
                picture.apply(event)
                picture.apply(event)  # twice is once
            drawn = await h.onair.draw("r1")
            assert picture.snapshot() == drawn.snapshot()
            assert picture.pins == drawn.pins == (await h.rooms.facts("r1")).pins
            assert (picture.seq, picture.n) == (drawn.seq, drawn.n)
            assert picture.snapshot()["pinned"][0]["skus"][0]["price_minor"] == 250
            assert [m["text"] for m in picture.now()["messages"]] == ["two"]
            assert picture.snapshot()["stock"] == {"p1.m": {"left": 5, "v": 10}}

    run(story())


def test_message_is_posted_once_for_an_operation(run, house):
    """The same operation says its message once, and gets the same answer."""

    async def story():
        async with house() as h:
            first = await h.rooms.say("r1", ANN, "hello", "u1:k1")
            assert await h.rooms.say("r1", ANN, "hello", "u1:k1") == first
            assert set(first) == {"id", "n", "member", "name", "text", "at"}
            assert len((await h.onair.draw("r1")).messages) == 1

    run(story())


def test_removed_message_is_gone_and_logged(run, house):
    """Removing a message takes it from history once, with a line in the log of acts."""

    async def story():
        async with house() as h:
            moderation = Moderation(h.db, h.rooms)
            said = await h.rooms.say("r1", ANN, "buy my list", None)
            await moderation.remove_message("r1", said["id"], by=Member("m1", "Mo"))
            assert list((await h.onair.draw("r1")).messages) == []
            with pytest.raises(Invalid, match="not_found"):
                await moderation.remove_message("r1", said["id"], by=Member("m1", "Mo"))
            rows = await h.db.read(lambda conn: conn.execute(tables.moderation_log.select()).all())
            assert [(r.by, r.act, r.member, r.text) for r in rows] == [
                ("m1", "message.remove", "u1", "buy my list")
            ]

    run(story())


def test_a_message_that_is_not_kept_any_more_can_be_removed(run, house):
    """It may be on screens still: all are told of it once, and its id is in the log of acts."""

    async def story():
        async with house() as h:
            moderation, by = Moderation(h.db, h.rooms), Member("m1", "Mo")
            said = [await h.rooms.say("r1", ANN, str(n), None) for n in range(400)]
            old, epoch = said[0]["id"], said[0]["id"].removesuffix("-1")
            await moderation.remove_message("r1", old, by=by)
            assert await h.told() == [("message.removed", {"message": old})]
            for gone in (old, f"{epoch}-401", "x-1"):
                with pytest.raises(Invalid, match="not_found"):
                    await moderation.remove_message("r1", gone, by=by)
            await h.rooms.unsay("r1", old)  # as who asked in the same moment
            assert len(await h.told()) == 1
            recent = said[-1]["id"]
            await moderation.remove_message("r1", recent, by=by)
            for n in range(400):
                await h.rooms.say("r1", ANN, str(n), None)
            with pytest.raises(Invalid, match="not_found"):
                await moderation.remove_message("r1", recent, by=by)
            rows = await h.db.read(lambda conn: conn.execute(tables.moderation_log.select()).all())
            assert [(r.message, r.member, r.text) for r in rows] == [
                (old, None, None),
                (recent, "u1", "399"),
            ]

    run(story())


def test_stock_reaches_the_rooms_that_show_the_sku(run, house):
    """A gate's change goes to each room here whose shelf shows the SKU, and no other."""

    async def story():
        async with house() as h:
            await h.onair.picture("r1")
            h.onair.stock_changed([("sku:p1.m", 4, 11), ("sku:p9.m", 1, 1), ("drop:d1", 2, 2)])
            assert h.passed == [("r1", {"sku": "p1.m", "left": 4, "v": 11})]
            h.onair.stock_changed([("sku:p1.m", 9, 3)])
            assert h.onair.shown("r1").stock["p1.m"] == {"left": 4, "v": 11}, "never older"
            h.onair.forget("r1")
            h.onair.stock_changed([("sku:p1.m", 3, 12)])
            assert len(h.passed) == 2

    run(story())


class Looked(list):
    """A shelf that counts how often it is looked through."""

    times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()


def test_rooms_that_come_and_go_beside_many_others(run, house):
    """What a room shows is noted without a look at other rooms: a thousand return at once."""

    async def story():
        async with house() as h:
            await h.rooms.create(NewRoom(title="Two", host="c1", id="r2", shelf=["p1", "p2"]))
            picture = await h.onair.picture("r1")
            shelf = picture.shelf = Looked(picture.shelf)
            await h.onair.picture("r2")
            h.onair.stock_changed([("sku:p1.m", 4, 11)])
            assert sorted(room for room, _ in h.passed) == ["r1", "r2"]
            h.onair.forget("r2")
            h.onair.stock_changed([("sku:p1.m", 3, 12)])
            assert [room for room, _ in h.passed[2:]] == ["r1"]
            assert shelf.times == 0

    run(story())


def test_beat_tells_taps_viewers_and_newer_stock(run, house):
    """Taps and viewers cross Redis once a beat; stock is passed on only when it is newer."""

    async def story():
        async with house() as h:
            h.gates = {"sku:p1.m": (5, 10)}
            await h.onair.picture("r1")
            for _ in range(3):
                await h.onair.tap("r1", "heart", 2)
            h.gates["sku:p1.m"] = (4, 11)
            await h.onair.beat()
            await h.onair.beat()
            assert h.passed == [("r1", {"sku": "p1.m", "left": 4, "v": 11})]
            state = await h.backplane.room_state("r1")
            assert (state.reactions[0], state.viewers[0]) == ({"heart": 6}, 7)

    run(story())


def test_stock_that_was_told_already_is_read_every_few_beats(run, house):
    """A beat reads what a room shows newly, or could not read; all of it only now and then."""

    async def story():
        async with house() as h:
            h.gates = {f"sku:p{at}.m": (5, 10) for at in (1, 2, 3, 4)}
            await h.rooms.put("r1", "p4", position=None, state="off")
            picture = await h.onair.picture("r1")
            await h.onair.beat()
            h.asked.clear()
            await h.onair.beat()
            assert h.asked == [set()]

            await h.rooms.put("r1", "p4", position=None, state="on")
            position = (await h.backplane.room_state("r1")).position
            for event in await h.backplane.read("r1", position._replace(seq=picture.seq)):
                picture.apply(event)
            h.away = True
            await h.onair.beat()
            h.away = False
            h.asked.clear()
            await h.onair.beat()
            assert h.asked == [{"sku:p4.m"}]
            assert h.passed == [("r1", {"sku": "p4.m", "left": 5, "v": 10})]

            h.gates["sku:p2.m"] = (3, 11)  # nobody was told
            for _ in range(COMPARE_BEATS):
                await h.onair.beat()
            assert h.passed[1:] == [("r1", {"sku": "p2.m", "left": 3, "v": 11})]

    run(story())


def test_after_a_cut_subscription_counts_and_stock_are_read_again(run, house):
    """State is not in the log: what was told meanwhile is asked for, and told once more."""

    async def story():
        async with house() as h:
            h.gates = {"sku:p1.m": (5, 10)}
            await h.onair.picture("r1")
            liked = Item(Event("reactions.counted", {}, 1), react={"heart": 3})
            await h.backplane.publish("r1", liked)
            await h.backplane.count_viewers("r1", "another node", 4)
            h.gates["sku:p1.m"] = (4, 11)
            await h.onair.catch_up()
            state = await h.backplane.room_state("r1")
            return h.passed, state.viewers[1], state.reactions[1]

    passed, viewers_v, reactions_v = run(story())
    assert passed == [
        ("r1", {"sku": "p1.m", "left": 4, "v": 11}),
        ("r1", {"viewers": 4, "v": viewers_v}),
        ("r1", {"reactions": {"heart": 3}, "v": reactions_v}),
    ]


def test_kinds_of_reaction_are_bounded(run, house):
    """Nobody fills the room's memory with kinds of reaction."""

    async def story():
        async with house() as h:
            await h.onair.picture("r1")
            for number in range(32):
                await h.onair.tap("r1", f"k{number}", 1)
            with pytest.raises(Invalid, match="bad_argument"):
                await h.onair.tap("r1", "one_more", 1)
            await h.onair.tap("r1", "k3", 1)

    run(story())


def test_change_that_was_never_told_is_told_by_a_beat(run, house):
    """A crash between commit and word is mended: nodes compare `v` with SQL."""

    async def story():
        async with house() as h:
            picture = await h.onair.picture("r1")
            await h.db.write(
                lambda conn: (
                    conn.execute(
                        tables.rooms.update()
                        .where(tables.rooms.c.id == "r1")
                        .values(title="Quiet", v=9)
                    ).rowcount
                )
            )
            for _ in range(12):  # more than once, so that what is told is told once
                await h.onair.beat()
                for name, data in await h.told(picture.seq):
                    picture.apply(Event(name, data, 0, seq=picture.seq + 1))
            assert [name for name, _ in await h.told()] == ["room.changed", "shelf.changed"]
            assert (picture.room["title"], picture.v) == ("Quiet", 9)

    run(story())


def test_slow_mode_waits_and_spares_moderators(run, house):
    """In slow mode a member speaks once in the time; those who keep order may always."""

    async def story():
        async with house() as h:
            room = await h.rooms.set("r1", fitting({"slow_mode_s": 5}, RoomChange))
            slow = SlowMode(h.clock)
            slow.take_turn(room, ANN, new_id())
            h.clock.advance(2000)
            with pytest.raises(Refused, match="slow_mode") as refusal:
                slow.take_turn(room, ANN, new_id())
            assert (refusal.value.retry, refusal.value.retry_after_ms) == (True, 3000)
            slow.take_turn(room, Member("u2", "Bo"), new_id())
            for _ in range(3):
                slow.take_turn(room, Member("m1", "Mo", ("moderator:r1",)), new_id())
            h.clock.advance(3000)
            slow.take_turn(room, ANN, new_id())

    run(story())


def test_who_may_speak_and_what_sells(run, house):
    """Guests speak where the room lets them; a room sells while it is live and not paused."""

    async def story():
        async with house() as h:
            guest = Member("g1", "Guest", guest=True)
            room = await h.rooms.show("r1")
            refuse_unless_may_speak(room, guest)
            with pytest.raises(Refused, match="not_open"):
                refuse_unless_selling(room)
            room = await h.rooms.open("r1")
            refuse_unless_selling(room)
            room = await h.rooms.pause("r1", paused=True)
            assert await h.rooms.pause("r1", paused=True) == room, "pausing twice is pausing once"
            with pytest.raises(Refused, match="sale_paused"):
                refuse_unless_selling(room)
            room = await h.rooms.set("r1", fitting({"members_only": True}, RoomChange))
            refuse_unless_may_speak(room, ANN)
            with pytest.raises(Exception, match="unauthenticated"):
                refuse_unless_may_speak(room, guest)
            room = await h.rooms.close("r1")
            with pytest.raises(Refused, match="not_open"):
                refuse_unless_may_speak(room, ANN)

    run(story())
