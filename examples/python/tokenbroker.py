"""Access tokens from tokenbroker, for a worker in Python.

    broker = tokenbroker.Client()              # TOKENBROKER_ADDR, _CA, _CERT, _KEY; or TOKENBROKER_ADDR=unix:///…/agent.sock
    token = broker.token("example/reports")    # from memory; a thread follows the broker and brings each fresh one

Copy this file and tokenbroker.binpb, which describes the protocol; tokenbroker_http.py, if urllib is what you call APIs with. Needed are
grpcio and protobuf (Debian: python3-grpcio, python3-protobuf). The messages are made from the description at run time, so that any release
of protobuf will do: generated code asks for the one that it was generated for, or a newer one.

A Client may be used by several threads. Make it after a fork, not before. It judges expiries by this machine's clock.
"""

import collections
import os
import random
import threading
import time

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SKEW = 2  # seconds: a token that ends sooner is as good as over, for it has to travel yet
NEWER_WAIT = 5  # seconds that refused() waits for a newer token
TRANSIENT = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "CANCELLED", "INTERNAL", "UNKNOWN")
OPTIONS = [("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 10_000), ("grpc.http2.max_pings_without_data", 0),
           ("grpc.use_local_subchannel_pool", 1)]  # a dead peer is noticed; a new channel is a new connection


class Error(Exception):
    """The broker gives no token. code is gRPC's, e.g. "NOT_FOUND"; the text says what is wrong."""

    def __init__(self, name, err):
        super().__init__(f"credential {name}: {err.code().name}: {err.details()}")
        self.code = err.code().name


class Token(collections.namedtuple("Token", "access_token token_type scopes expires generation metadata")):
    """expires is in seconds since 1970; metadata is what a job needs besides, e.g. instance_url. What repr and str show is no secret."""

    def __repr__(self):
        return f"<{self.token_type} token, generation {self.generation}, expires {self.expires:.0f}>"

    @property
    def headers(self):
        return {"Authorization": f"{self.token_type} {self.access_token}"}


class _Slot:
    """What is held of one credential."""

    def __init__(self):
        self.token, self.ask_at, self.failures, self.asking = None, 0, 0, threading.Lock()

    def good(self):
        token = self.token
        return token if token and time.time() < token.expires - SKEW else None


class Client:
    """Tokens of any number of credentials, with one stream for all of them. on_change(name, token) hears of each fresh token, on
    whatever thread it came by: return soon, and ask this client nothing."""

    def __init__(self, addr=None, ca=None, cert=None, key=None, server_name=None, on_change=lambda name, token: None):
        def env(value, name):
            return value or os.environ.get("TOKENBROKER_" + name, "")
        self._addrs = [a.strip() for a in env(addr, "ADDR").split(",")]
        self._files = [env(ca, "CA"), env(key, "KEY"), env(cert, "CERT")]
        self._server_name, self._on_change = env(server_name, "SERVER_NAME"), on_change
        if not self._addrs[0] or not (self._addrs[0].startswith("unix:") or all(self._files)):
            raise ValueError("set TOKENBROKER_ADDR, TOKENBROKER_CA, TOKENBROKER_CERT and TOKENBROKER_KEY, or TOKENBROKER_ADDR=unix:///…")
        if self._server_name.startswith("spiffe://"):
            raise ValueError("gRPC for Python knows a server by its DNS name or IP address: name one, or go by an agent's socket")
        self._slots, self._changed, self._wake, self._closed = {}, threading.Condition(), threading.Event(), False
        self._stream, self._answers, self._channel, self._dials, self._dialing = None, False, None, 0, threading.Lock()
        self._dial()
        self._thread = threading.Thread(target=self._follow, name="tokenbroker", daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._closed = True
        self._reopen()
        self._thread.join()
        self._channel.close()

    def token(self, name):
        """A token that is valid now. While the broker does not answer, the last good one until it ends; then an Error."""
        slot = self._slots.setdefault(name, _Slot())
        if slot.good() and time.time() < slot.ask_at:
            return slot.token
        with slot.asking:  # one asks; who comes meanwhile waits for that answer
            if slot.good() and time.time() < slot.ask_at:
                return slot.token
            try:
                self._keep(name, self._call("GetToken", 5 if slot.good() else 30, credential=name))
            except grpc.RpcError as err:
                if err.code().name not in TRANSIENT:
                    slot.token = None  # it is not for us any more
                slot.failures += 1
                slot.ask_at = time.time() + _jitter(slot.failures)
                if not slot.good():
                    raise Error(name, err) from None
            return slot.token

    def headers(self, name):
        """The header that a request to the API needs."""
        return self.token(name).headers

    def report_rejected(self, name, token, status, error_code=""):
        """Tells the broker that an API refused a token. Returns after how many seconds a further report can help, 0 = need not be."""
        try:
            reply = self._call("ReportRejected", 30, credential=name, generation=token.generation, http_status=status, error_code=error_code)
        except grpc.RpcError as err:
            raise Error(name, err) from None
        if reply.HasField("token"):
            self._keep(name, reply)
        return _seconds(reply.retry_delay)

    def refused(self, name, token, status, error_code=""):
        """What to call when an API answered 401 or 403, with the error of its WWW-Authenticate header. True: there is a newer token, try
        once more with it. One that came since the request began needs no report; else the broker has NEWER_WAIT to bring one."""
        slot, deadline = self._slots[name], time.monotonic() + NEWER_WAIT

        def newer():
            return slot.token is not None and slot.token.generation > token.generation
        while not newer() and (left := deadline - time.monotonic()) > 0:
            try:
                wait = self.report_rejected(name, token, status, error_code) or left
            except Error:
                wait = 0.5  # the broker may be restarting
            if status != 401:
                return False  # a newer token would be refused, too
            with self._changed:
                self._changed.wait_for(newer, min(wait, left))
        return status == 401 and newer()

    def _keep(self, name, message):
        """Takes the token of a message, unless it is older than what is held. The next question is due when the broker's refresh is."""
        t, slot, now = message.token, self._slots[name], time.time()
        token = Token(t.access_token, t.token_type, tuple(t.scopes), _seconds(t.expire_time), t.generation, dict(t.metadata))
        with self._changed:
            old = slot.token
            if old and old.generation > token.generation:
                return
            refresh = _seconds(message.refresh_time) if hasattr(message, "refresh_time") else 0
            slot.token, slot.failures = token, 0
            slot.ask_at = max(refresh, now + (token.expires - now) / 10)  # give a refresh that is under way its time
            self._changed.notify_all()
        if not old:
            self._reopen()  # the stream has to bring this one, too
        if not old or old.generation < token.generation:
            self._on_change(name, token)

    def _call(self, method, timeout, **fields):
        """One call: once more if the channel was replaced meanwhile, and at each address while none is known to answer."""
        for more in reversed(range(len(self._addrs) + 1)):
            channel = self._channel
            try:
                return _call(channel, method, timeout, fields)
            except (grpc.RpcError, ValueError) as err:  # ValueError: it is closed
                unreachable = isinstance(err, grpc.RpcError) and err.code().name == "UNAVAILABLE" and not self._answers
                if not more or channel is self._channel and (more == 1 or not unreachable):
                    raise
                self._dial(channel)

    def _dial(self, old=None):
        """A new channel in place of an old one: to the next address, with the certificate that is in the files by now."""
        with self._dialing:
            if self._channel is not old:
                return
            addr = self._addrs[self._dials % len(self._addrs)]
            self._dials += 1
            if addr.startswith("unix:"):
                self._channel = grpc.insecure_channel(addr, OPTIONS)
            else:
                name = [("grpc.ssl_target_name_override", self._server_name)] if self._server_name else []
                self._channel = grpc.secure_channel(addr, grpc.ssl_channel_credentials(*map(_read, self._files)), OPTIONS + name)
        if old:
            old.close()

    def _reopen(self):
        self._wake.set()
        if self._stream:
            self._stream.cancel()

    def _follow(self):
        """The thread: one stream for all names that have a token, opened anew when there is another name, or when it ends."""
        failures = 0
        while not self._closed:
            self._wake.clear()
            names = sorted(name for name, slot in list(self._slots.items()) if slot.token)[:256]
            try:
                channel = self._channel
                if names:
                    self._stream = _call(channel, "Subscribe", None, {"selectors": [{"credential": name} for name in names]})
                    if self._wake.is_set():  # by one who did not see this stream
                        self._stream.cancel()
                    for message in self._stream:
                        failures, self._answers = 0, True
                        self._take(message)
            except (grpc.RpcError, ValueError):
                pass  # the broker is down, drains, or refuses the stream: there are the last good tokens, and GetToken
            self._answers = False
            if self._wake.wait(_jitter(failures) if names else None):
                time.sleep(0.05)  # several new names make one new stream
                continue
            failures += 1
            try:
                self._dial(channel)
            except OSError:
                pass  # somebody is replacing the certificate

    def _take(self, message):
        kind = message.WhichOneof("event")
        if kind == "update" and message.update.HasField("token"):
            self._keep(message.update.selector.credential, message.update)
        elif kind in ("update", "removed"):  # there is none, or none for us: token() has to ask why
            self._slots[getattr(message, kind).selector.credential].ask_at = 0


def _read(path):
    with open(path, "rb") as f:
        return f.read()


def _seconds(t):
    return t.seconds + t.nanos / 1e9


def _jitter(failures):
    """Full jitter, from 100 ms doubling to 30 s."""
    return random.uniform(0, min(30, 0.1 * 2 ** min(failures, 10)))


def _load(path):
    """The messages of the protocol by name."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(_read(path)).file:
        pool.AddSerializedFile(file.SerializeToString())
    make = getattr(message_factory, "GetMessageClass", None) or message_factory.MessageFactory(pool).GetPrototype
    return {m: make(pool.FindMessageTypeByName("tokenbroker.v1." + m)) for method in ("GetToken", "Subscribe", "ReportRejected")
            for m in (method + "Request", method + "Response")}


_messages = _load(os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenbroker.binpb"))


def _call(channel, method, timeout, fields):
    kind = channel.unary_stream if method == "Subscribe" else channel.unary_unary
    stub = kind("/tokenbroker.v1.TokenService/" + method, lambda m: m.SerializeToString(), _messages[method + "Response"].FromString)
    return stub(_messages[method + "Request"](**fields), timeout=timeout)
