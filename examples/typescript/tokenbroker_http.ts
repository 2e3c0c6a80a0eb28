/**
 * Calls to an API with a token of tokenbroker, by fetch, past a 401.
 *
 *     const reply = await open(broker, "example/reports", "https://api.example.com/reports");
 */
import type { Client } from "./tokenbroker.js";

/**
 * fetch with a token. A refused one is reported; when that brings a newer one the request is sent once more, if its body can be. Over https
 * alone; a redirect is returned as it is: the token is for the host that you named.
 */
export async function open(broker: Client, name: string, url: string | URL, init: RequestInit = {}): Promise<Response> {
  if (new URL(url).protocol !== "https:") throw new Error("a token goes over https only");
  const isStream = init.body != null && Symbol.asyncIterator in Object(init.body);
  for (let tries = isStream ? 1 : 2; ;) {
    const token = await broker.token(name);
    const headers = new Headers(init.headers);
    headers.set("Authorization", token.headers.Authorization);
    const reply = await fetch(url, { ...init, headers, redirect: "manual" });
    tries--;
    if (reply.status !== 401 && reply.status !== 403) return reply;
    const newer = await broker.refused(name, token, reply.status, errorOf(reply));
    if (!newer || tries < 1) return reply;
    await reply.body?.cancel();
  }
}

/** The error code of RFC 6750 §3.1, e.g. invalid_token or insufficient_scope. */
function errorOf(reply: Response): string {
  return /\berror="?([A-Za-z0-9_.-]{1,64})/.exec(reply.headers.get("WWW-Authenticate") ?? "")?.[1] ?? "";
}
