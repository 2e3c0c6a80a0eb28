"""Calls to an API with a token of tokenbroker, by urllib, past a 401.

    with tokenbroker_http.open(broker, "example/reports", "https://api.example.com/reports") as reply:
        print(reply.read())
"""

import re
import urllib.error
import urllib.request


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def open(broker, name, request, timeout=60):
    """urllib.request.urlopen with a token. A refused one is reported; when that brings a newer one the request is sent once more, if its
    body can be. Over https alone; a redirect is an HTTPError like any other status that is not 2xx: the token is for the host you named."""
    if isinstance(request, str):
        request = urllib.request.Request(request)
    if request.type != "https":
        raise ValueError("a token goes over https only")
    tries = 2 if request.data is None or isinstance(request.data, (bytes, bytearray)) else 1
    while True:
        token = broker.token(name)
        request.add_header("Authorization", token.headers["Authorization"])
        try:
            return _opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as err:
            tries -= 1
            newer = err.code in (401, 403) and broker.refused(name, token, err.code, _error(err.headers))
            if not newer or tries < 1:
                raise
            err.close()


def _error(headers):
    """The error code of RFC 6750 §3.1, e.g. invalid_token or insufficient_scope."""
    found = re.search(r'\berror="?([A-Za-z0-9_.-]{1,64})', headers.get("WWW-Authenticate") or "")
    return found.group(1) if found else ""
