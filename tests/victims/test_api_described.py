"""A description that is not what it should be is one sentence that names the key, before anything is asked."""

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from api_server import FORMS, described

import signstep as ss
from signstep.errors import InputError, LoadError, SignstepError
from signstep.model.victims.address import Address
from signstep.model.victims.described import description
from signstep.model.victims.exchange import Unreadable
from signstep.model.victims.place import Place

URL = "https://api.example.org/v1"


def changed(form: str = "array", **tables: dict[str, Any]) -> dict[str, Any]:
    plain = described(form)
    return {**plain, **{name: {**plain.get(name, {}), **table} for name, table in tables.items()}}


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        (changed(request={"as": "jpeg"}), r"request\.as = 'jpeg'; write one of png, multipart"),
        ({"answer": {"is": "scores"}}, r"request\.as is missing: how do inputs go\? Write one of png"),
        ({"request": {"as": "png"}}, r"answer\.is is missing: what comes back\? Write one of scores"),
        (changed(answer={"is": "score"}), r"answer\.is = 'score'"),
        (changed(answer={"clases": ["a"]}), r"no key answer\.clases; did you mean answer\.classes\?"),
        (changed(requests={"as": "png"}), r"no key requests; did you mean request\?"),
        (changed(limits={"rate": 5}), r"no key limits\.rate; write one of"),
        (changed(limits={"max_requests": 0}), r"max_requests=0; pass at least 1"),
        (changed(limits={"max_requests": 1.5}), r"limits\.max_requests = 1\.5 is not a whole number"),
        (changed(limits={"timeout": -1}), r"timeout=-1"),
        (changed(limits={"timeout": float("nan")}), r"limits\.timeout = nan is not a number"),
        (changed(limits={"requests_per_second": 0}), r"requests_per_second=0"),
        (changed(limits={"price": -1}), r"price=-1"),
        (changed(request={"method": "GET"}), r"request\.method = 'GET'; write one of POST"),
        (changed(request={"batch": 0}), r"request\.batch = 0"),
        (changed("png", request={"batch": 4}), r"request\.batch = 4 needs a list to stand in; write request\.at"),
        (changed(answer={"at": "scores"}), r"answer\.at = 'scores' has no \[\] for the answers to request\.batch = 4"),
        (changed(request={"at": "a..b"}), r"request\.at = 'a\.\.b' is no place in JSON"),
        (changed(request={"at": "a[][]"}), r"is no place in JSON"),
        (changed(request={"at": "a[0].b[]"}), r"request\.at = 'a\[0\]\.b\[\]' has a number"),
        (changed("png", request={"at": "x"}), r"request\.at has no meaning"),
        (changed("png", request={"with": {"a": 1}}), r"request\.with has no place to stand"),
        (changed(request={"with": {"inputs": 1}}), r"request\.with has 'inputs', where the input stands"),
        (changed("multipart", request={"at": "a.b"}), r"write the name of the form's field"),
        (changed("record", request={"fields": []}), r"request\.fields = \[\] is not a list of texts"),
        (changed("record", request={"fields": ["a", "a"]}), r"request\.fields names a field twice"),
        (changed(request={"fields": ["a"]}), r"request\.fields has no effect with request\.as = 'array'"),
        (changed(request={"pixels": [0, 1]}), r"request\.pixels has no effect with request\.as = 'array'"),
        (changed("png", request={"pixels": [1, 0]}), r"request\.pixels = \[1, 0\]; write the two ends"),
        (changed("png", request={"shape": [3, 0]}), r"request\.shape = \[3, 0\]"),
        (changed(answer={"classes": ["a", "a"]}), r"answer\.classes names a class twice"),
        (changed(answer={"value": "score"}), r"answer\.value = 'score' goes with the key"),
        (changed(headers={"Authorization": "$NOT_THERE_AT_ALL"}), r"names \$NOT_THERE_AT_ALL, which is not set"),
        (changed(headers={"Host": "evil.example"}), r"headers has 'Host'"),
        (changed(headers={"X-A\r\nX-B": "1"}), r"headers has 'X-A\\r\\nX-B'|headers has"),
        (changed(headers={"X-A": "1\r\nX-B: 2"}), r"headers\.X-A has characters that no header has"),
        (changed(headers={"X-A": 5}), r"headers\.X-A is not text"),
        ({**described(), "headers": "x"}, r"headers is no table"),
    ],
)
def test_a_mistake_names_its_key(plain: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        ss.open(URL, endpoint=plain)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400


def test_a_file_is_read_with_caps_and_named(tmp_path: Path) -> None:
    path = tmp_path / "victim.toml"
    path.write_text("[request]\nas = 'png'\n[answer]\nis = 'score'\n")
    with pytest.raises(InputError, match=r"^victim\.toml: answer\.is = 'score'"):
        ss.open(URL, endpoint=path)
    path.write_text("[request\n")
    with pytest.raises(LoadError, match="is not TOML"):
        ss.open(URL, endpoint=path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(LoadError):
        ss.open(URL, endpoint=path)
    path.write_text("a = " + "[" * 200 + "]" * 200)
    with pytest.raises(SignstepError):
        ss.open(URL, endpoint=path)
    path.write_text("#" * 2**21)
    with pytest.raises(LoadError, match="raise the cap"):
        ss.open(URL, endpoint=path)
    path.write_text('[request]\nas = "array"\n[request.with]\nwhen = 2020-01-01\n[answer]\nis = "scores"\n')
    with pytest.raises(InputError, match="is not a table of texts, finite numbers"):
        ss.open(URL, endpoint=path)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_declared_stands_in_the_model(form: str) -> None:
    plain = described(form, **{"is": "probabilities"})
    plain["request"]["shape"] = [3, 4, 4]
    model = ss.open(URL, endpoint=plain)
    assert model.title == URL
    assert model.classes == ("cat", "dog", "fox")
    assert model.outputs == "probabilities"
    assert model.shape == (3, 4, 4)
    assert set(model.hashes) == {"endpoint"}


@pytest.mark.parametrize(
    ("text", "document", "found"),
    [
        ("", [1, 2], [[1, 2]]),
        ("a.b", {"a": {"b": 3}}, [3]),
        ("a[1].b", {"a": [0, {"b": 4}]}, [4]),
        ('a."b.c"', {"a": {"b.c": 5}}, [5]),
        ("[0]", [6], [6]),
        ("[]", [7, 8], [7, 8]),
        ("a[].b", {"a": [{"b": 1}, {"b": 2}]}, [1, 2]),
        ("a[][0]", {"a": [[1], [2]]}, [1, 2]),
    ],
)
def test_places(text: str, document: Any, found: list[Any]) -> None:
    assert Place.of(text, "answer.at").read(document, len(found)) == found


@pytest.mark.parametrize("text", ["inputs[]", "[]", "a.b.c", "a.b[].c.d", '"x y"[]'])
def test_what_is_put_in_a_place_is_read_there(text: str) -> None:
    place = Place.of(text, "request.at")
    values = [1, [2], {"x": 3}] if place.several else [5]
    assert place.read(place.put(values), len(values)) == values


@pytest.mark.parametrize("seed", range(40))
def test_any_document_at_any_place_is_read_or_refused(seed: int) -> None:
    drawn = random.Random(seed)

    def some(depth: int) -> Any:
        kind = drawn.randint(0, 6 if depth else 3)
        if kind < 4:
            return [None, drawn.random(), "text", True][kind]
        if kind < 6:
            return {name: some(depth - 1) for name in drawn.sample("abc", drawn.randint(0, 3))}
        return [some(depth - 1) for _ in range(drawn.randint(0, 3))]

    for _ in range(50):
        text = ".".join(drawn.choice(["a", "b[0]", "c", "a[1]"]) for _ in range(drawn.randint(1, 3)))
        text += drawn.choice(["", "[]", "[].a"])
        rows = drawn.randint(1, 3)
        with suppress(Unreadable):
            assert len(Place.of(text, "answer.at").read(some(4), rows)) in (1, rows)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:pw@host/p",
        "https://host/p?key=1",
        "https://host/p#a",
        "http://example.org/",
        "http://127.0.0.1.example.org/",
        "http://localhost.example.org/",
        "https://",
        "https:///p",
        "https://host:99999/",
        "https://ho st/",
        "https://host/\n",
        "https://höst/",
        "https://host/p?",
        "ftp://host/",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(InputError) as caught:
        Address.of(url)
    assert "pw" not in str(caught.value)
    assert "key=1" not in str(caught.value) or url.startswith("ftp")


@pytest.mark.parametrize("url", ["https://host/p", "http://127.0.0.1:80/p", "http://localhost/p", "http://[::1]:8000/"])
def test_addresses_that_are_taken(url: str) -> None:
    assert Address.of(url).url == url


def test_a_description_reads_back_from_a_mapping() -> None:
    assert description(described("png")).batch == 1
    assert description(described("array")).batch == 4
