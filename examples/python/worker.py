"""A worker: each line of standard input is a job, the name of a credential and a URL to get with its token.

    echo example/reports https://api.example.com/reports | python3 worker.py
"""

import sys
import urllib.error

import tokenbroker
import tokenbroker_http


def say(*words):
    print(*words, flush=True)


def work(broker, name, url):
    try:
        with tokenbroker_http.open(broker, name, url) as reply:
            reply.read()
            say("done", reply.status, url)
    except urllib.error.HTTPError as err:
        say("refused", err.code, url)
    except (tokenbroker.Error, urllib.error.URLError, ValueError) as err:
        say("failed", url, err)


def main():
    fresh = lambda name, token: say("fresh", name, token.generation)
    with tokenbroker.Client(on_change=fresh) as broker:
        for line in sys.stdin:
            work(broker, *line.split())


if __name__ == "__main__":
    main()
