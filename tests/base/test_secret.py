"""What is hidden of secrets, and what is left alone."""

from __future__ import annotations

import time

import pytest

from blackboxml.base.secret import HIDDEN, Mask, hide, is_secret, secrets_in


@pytest.mark.parametrize(
    "name",
    [
        *("WANDB_API_KEY", "hub_token", "db.password", "MY_KEY", "KEY", "authToken", "accessKey"),
        *("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "client-secret", "PGPASSWD", "credentials"),
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name) is (name != "PGPASSWD")  # words are told apart by case and signs


@pytest.mark.parametrize(
    "name",
    [
        *("tokenizer", "max_tokens", "sort_key", "pad_token", "key", "monkey", "pass_rate", ""),
        *("num_key_value_heads", "key_dim", "compass", "bos_token", "per_token"),
    ],
)
def test_names_of_settings(name: str) -> None:
    assert not is_secret(name)


def test_settings_are_hidden_at_any_depth_and_others_left_alone() -> None:
    settings = {"api_key": "abc", "deep": {"password": "x", "lr": 0.1}, "token": 5, 7: "a"}
    assert hide(settings) == {
        "api_key": HIDDEN,
        "deep": {"password": HIDDEN, "lr": 0.1},
        "token": 5,
        7: "a",
    }
    assert secrets_in(settings) == {"abc", "x"}


GITHUB = "ghp_" + "a1" * 18


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ('API_KEY = "abcd1234"', 'API_KEY = "<hidden>"'),
        ("-password = 'abcd'", "-password = '<hidden>'"),
        ("token: str = 'xyz12345'", "token: str = '<hidden>'"),
        ('{"password": "hunter22", "a": 1}', '{"password": "<hidden>", "a": 1}'),
        ('d["api_key"] = "zzzz9999"', 'd["api_key"] = "<hidden>"'),
        ("+export DB_PASSWORD=hunter22xx", "+export DB_PASSWORD=<hidden>"),
        ("+  secret_key: abcd1234efgh", "+  secret_key: <hidden>"),
        ("train.py --token abcdefghij x", "train.py --token <hidden> x"),
        ("train.py --api-key=abcdefgh12", "train.py --api-key=<hidden>"),
        ("https://user:pw@host/x", "https://<hidden>@host/x"),
        ("git+https://abc@host", "git+https://<hidden>@host"),
        ("Authorization: Bearer abcdefghijklmnopqrst", "Authorization: Bearer <hidden>"),
        ("x AKIAABCDEFGHIJKLMNOP y", "x <hidden> y"),
        (f"a {GITHUB},", "a <hidden>,"),
        ("key: -----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\nb", "key: <hidden>\nb"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII", "<hidden>"),
        ("echo variable-value and config-value", "echo <hidden> and <hidden>"),
    ],
)
def test_secrets_in_texts(monkeypatch: pytest.MonkeyPatch, text: str, masked: str) -> None:
    monkeypatch.setenv("SOME_TOKEN", "variable-value")
    assert Mask(["config-value"])(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        'API_KEY = os.environ["X"]',
        'API_KEY=os.environ.get("X")',
        "f(api_key=get_api_key(), x=1)",
        "secret: str = Field()",
        'tokenizer = "bert-base"',
        'pad_token="<pad>"',
        'key = "sort_me"',
        "def f(token: Token, secret: bytes) -> None",
        "sk-learn-is-a-library-of-machine",
        "the password is in the drawer",
        "x@y.org http://host/a@b",
        "a\nb\n\n",
    ],
)
def test_texts_that_hold_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SHORT_TOKEN", "a")
    assert Mask()(text) == text


@pytest.mark.parametrize(
    "hostile",
    [
        "a" * 2**18,
        "a-" * 2**17,
        "a://" * 2**16,
        "password = '" * 2**14,
        "password='x" + " " * 2**18,
        "key=" * 2**16,
        "--token " * 2**15,
        "-----BEGIN PRIVATE KEY-----" * 2**13,
        "eyJ" * 2**16,
    ],
)
def test_the_time_grows_with_the_length_alone(hostile: str) -> None:
    mask = Mask()
    half = hostile[: len(hostile) // 8]
    seconds = []
    for text in (half, hostile):
        began = time.thread_time()
        mask(text)
        seconds.append(time.thread_time() - began)
    assert seconds[1] < 24 * seconds[0] + 0.05  # 64 times, if it grew with the square
