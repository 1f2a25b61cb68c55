"""Serves the labelling page on this machine only."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from diffdecide.data.episode import Episode
from reward_models.labelling.page import PAGE
from reward_models.labelling.scenes import picture
from reward_models.labelling.store import ANSWERS, Answer, LabelStore, Question
from safety.layout import EnvSpec

MAX_BODY = 10_000  # bytes; an answer is a few dozen


class LabelServer:
    """Asks the questions that the store has no answer to.

    Args:
        port: 0 takes a free one; see `url`.
        annotator: stored with each answer.
    """

    def __init__(
        self,
        store: LabelStore,
        questions: Sequence[Question],
        episodes: Sequence[Episode],
        spec: EnvSpec,
        *,
        port: int = 0,
        annotator: str = "person",
    ) -> None:
        if not questions:
            raise ValueError("expected at least one question, got none")
        self.store, self.questions, self.episodes, self.spec = store, list(questions), episodes, spec
        self.annotator = annotator
        # Another page in the same browser can send requests here, but it cannot read the token.
        self.token = secrets.token_urlsafe(16)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def serve(self) -> None:
        """Answer requests until `stop` (or an interrupt)."""
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._server.server_close()

    def stop(self) -> None:
        self._server.shutdown()

    def question(self) -> dict[str, Any]:
        """The next open question as JSON values."""
        answered = sum(number in self.store.answers for number in range(len(self.questions)))
        state = {"answered": answered, "total": len(self.questions), "token": self.token}
        number = next((n for n in range(len(self.questions)) if n not in self.store.answers), None)
        if number is None:
            return {**state, "done": True}
        asked = self.questions[number]
        return {
            **state,
            "done": False,
            "number": number,
            "one": picture(self.episodes[asked.episode_1], asked.start_1, asked.length, self.spec),
            "two": picture(self.episodes[asked.episode_2], asked.start_2, asked.length, self.spec),
        }

    def answer(self, value: Any) -> None:
        """Store an answer; ValueError where it is none."""
        if not isinstance(value, dict):
            raise ValueError("expected an object with number and answer")
        number, word = value.get("number"), value.get("answer")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(self.questions):
            raise ValueError(f"number must be 0 to {len(self.questions) - 1}, got {number!r}")
        if word not in ANSWERS:
            raise ValueError(f"answer must be one of {', '.join(ANSWERS)}, got {word!r}")
        seconds = value.get("seconds", 0.0)
        seconds = float(seconds) if isinstance(seconds, int | float) else 0.0
        with self._lock:
            self.store.add(Answer(number, self.questions[number], word, self.annotator, round(seconds, 2)))


def _handler(server: LabelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/":
                self._send(200, PAGE.encode(), "text/html; charset=utf-8")
            elif self.path == "/question":
                self._json(200, server.question())
            else:
                self._json(404, {"error": "no such page"})

        def do_POST(self) -> None:
            if self.path != "/answer":
                self._json(404, {"error": "no such page"})
                return
            if not secrets.compare_digest(self.headers.get("X-Label-Token", ""), server.token):
                self._json(403, {"error": "this page is out of date: reload it"})
                return
            try:
                length = int(self.headers.get("Content-Length", "0"))
                if not 0 < length <= MAX_BODY:
                    raise ValueError(f"expected 1 to {MAX_BODY} bytes, got {length}")
                server.answer(json.loads(self.rfile.read(length)))
            except (ValueError, RecursionError) as error:
                self._json(400, {"error": str(error)})
            except OSError as error:
                self._json(500, {"error": f"the answer could not be stored: {error}"})
            else:
                self._json(200, {"stored": True})

        def _json(self, status: int, value: Any) -> None:
            self._send(status, json.dumps(value).encode(), "application/json")

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Quiet: the terminal belongs to the command."""

    return Handler
