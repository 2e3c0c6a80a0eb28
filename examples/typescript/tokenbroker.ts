/**
 * Access tokens from tokenbroker, for a worker in TypeScript.
 *
 *     const broker = new Client();                           // TOKENBROKER_ADDR, _CA, _CERT, _KEY; or TOKENBROKER_ADDR=unix:///…/agent.sock
 *     const token = await broker.token("example/reports");   // from memory; a stream brings each fresh one
 *
 * Copy this file and the folder proto/tokenbroker, and say in Options.protos where that is; tokenbroker_http.ts, if fetch is what you call
 * APIs with. Needed are @grpc/grpc-js and @grpc/proto-loader. Expiries are judged by this machine's clock.
 */
import { EventEmitter } from "node:events";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const SKEW = 2_000; // ms: a token that ends sooner is as good as over, for it has to travel yet
const NEWER_WAIT = 5_000; // ms that refused() waits for a newer token
const FOREVER = 2 ** 31 - 1;
const TRANSIENT = ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "CANCELLED", "INTERNAL", "UNKNOWN"];

/** What is missing is taken from the environment. */
export interface Options {
  addr?: string; // host:port, several with commas between, or unix:///path
  ca?: string; // a file, as are the next two
  cert?: string;
  key?: string;
  serverName?: string; // what the broker's certificate has to hold, if not addr's host: a DNS name, an IP address or a SPIFFE ID
  protos?: string; // the folder that holds tokenbroker/v1/*.proto
  onChange?: (name: string, token: Token) => void; // hears of each fresh token
}

/** The broker gives no token. code is gRPC's, e.g. "NOT_FOUND"; the message says what is wrong. */
export class BrokerError extends Error {
  readonly code: string;
  constructor(name: string, err: unknown) {
    super(`credential ${name}: ${codeOf(err)}: ${(err as grpc.ServiceError).details ?? err}`);
    this.code = codeOf(err);
  }
}

/** metadata is what a job needs besides, e.g. instance_url. What console.log and JSON show is no secret. */
export class Token {
  readonly #secret: string;
  constructor(secret: string, readonly type: string, readonly scopes: string[], readonly expires: Date, readonly generation: bigint,
    readonly metadata: Record<string, string>) {
    this.#secret = secret;
  }
  reveal(): string { return this.#secret; }
  get headers(): { Authorization: string } { return { Authorization: `${this.type} ${this.#secret}` }; }
  get good(): boolean { return Date.now() < this.expires.getTime() - SKEW; }
}

/** What is held of one credential. */
class Slot {
  token?: Token;
  askAt = 0;
  failures = 0;
  asking?: Promise<void>;
}

// The messages as proto-loader makes them, as far as they are used here.
type Time = { seconds: string; nanos: number } | null;
type WireToken = { accessToken: string; tokenType: string; scopes: string[]; expireTime: Time; generation: string; metadata: Record<string, string> };
type Reply = { token: WireToken | null; refreshTime?: Time; retryDelay?: Time };
type Selected = { selector: { credential: string } };
type Event = { event?: string; update?: Reply & Selected; removed?: Selected };

/** Tokens of any number of credentials, with one stream for all of them. Close it: until then it keeps the process alive. */
export class Client {
  readonly #options: Required<Options>;
  readonly #addrs: string[];
  readonly #service: grpc.ServiceDefinition;
  readonly #slots = new Map<string, Slot>();
  readonly #changes = new EventEmitter().setMaxListeners(0);
  readonly #following: Promise<void>;
  #channel: grpc.Client;
  #stream?: grpc.ClientReadableStream<Event>;
  #dials = 0;
  #answers = false;
  #woken = false;
  #closed = false;

  constructor(options: Options = {}) {
    const env = (name: string) => process.env["TOKENBROKER_" + name] ?? "";
    const o = this.#options = {
      addr: env("ADDR"), ca: env("CA"), cert: env("CERT"), key: env("KEY"), serverName: env("SERVER_NAME"), onChange: () => {},
      protos: fileURLToPath(new URL("../../../proto", import.meta.url)), ...options,
    };
    if (!o.addr || !(o.addr.startsWith("unix:") || (o.ca && o.cert && o.key))) {
      throw new Error("set TOKENBROKER_ADDR, TOKENBROKER_CA, TOKENBROKER_CERT and TOKENBROKER_KEY, or TOKENBROKER_ADDR=unix:///…");
    }
    const files = loadSync("tokenbroker/v1/token_service.proto", { includeDirs: [o.protos], longs: String, enums: String, defaults: true, oneofs: true });
    this.#service = files["tokenbroker.v1.TokenService"] as grpc.ServiceDefinition;
    this.#addrs = o.addr.split(",").map((addr) => addr.trim());
    this.#channel = this.#dial();
    this.#following = this.#follow();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#reopen();
    await this.#following;
    this.#channel.close();
  }

  /** A token that is valid now. While the broker does not answer, the last good one until it ends; then a BrokerError. */
  async token(name: string): Promise<Token> {
    let slot = this.#slots.get(name);
    if (!slot) this.#slots.set(name, slot = new Slot());
    if (!slot.token?.good || Date.now() >= slot.askAt) {
      await (slot.asking ??= this.#ask(name, slot).finally(() => slot.asking = undefined)); // one asks for all who come meanwhile
    }
    return slot.token!;
  }

  /** The header that a request to the API needs. */
  async headers(name: string): Promise<{ Authorization: string }> {
    return (await this.token(name)).headers;
  }

  /** Tells the broker that an API refused a token. Resolves to how many ms later a further report can help, 0 = none need be. */
  async reportRejected(name: string, token: Token, status: number, errorCode = ""): Promise<number> {
    const report = { credential: name, generation: String(token.generation), httpStatus: status, errorCode };
    const reply = await this.#call("ReportRejected", 30_000, report).catch((err) => { throw new BrokerError(name, err); });
    if (reply.token) this.#keep(name, reply);
    return ms(reply.retryDelay);
  }

  /**
   * What to call when an API answered 401 or 403, with the error of its WWW-Authenticate header. True: there is a newer token, try once more
   * with it. One that came since the request began needs no report; else the broker has NEWER_WAIT to bring one.
   */
  async refused(name: string, token: Token, status: number, errorCode = ""): Promise<boolean> {
    const newer = () => (this.#slots.get(name)?.token?.generation ?? 0n) > token.generation;
    const deadline = performance.now() + NEWER_WAIT;
    for (let left = NEWER_WAIT; !newer() && left > 0; left = deadline - performance.now()) {
      const wait = await this.reportRejected(name, token, status, errorCode).catch(() => 500); // the broker may be restarting
      if (status !== 401) return false; // a newer token would be refused, too
      await this.#until(newer, Math.min(wait || left, left));
    }
    return status === 401 && newer();
  }

  async #ask(name: string, slot: Slot): Promise<void> {
    try {
      this.#keep(name, await this.#call("GetToken", slot.token?.good ? 5_000 : 30_000, { credential: name }));
    } catch (err) {
      if (!TRANSIENT.includes(codeOf(err))) slot.token = undefined; // it is not for us any more
      slot.askAt = Date.now() + jitter(++slot.failures);
      if (!slot.token?.good) throw new BrokerError(name, err);
    }
  }

  /** Takes the token of a message, unless it is older than what is held. The next question is due when the broker's refresh is. */
  #keep(name: string, { token: t, refreshTime }: Reply): void {
    const slot = this.#slots.get(name);
    if (!t || !slot) return;
    const token = new Token(t.accessToken, t.tokenType, t.scopes, new Date(ms(t.expireTime)), BigInt(t.generation), t.metadata);
    const old = slot.token, now = Date.now();
    if (old && old.generation > token.generation) return;
    slot.token = token;
    slot.failures = 0;
    slot.askAt = Math.max(ms(refreshTime), now + (token.expires.getTime() - now) / 10); // give a refresh that is under way its time
    this.#changes.emit("change");
    if (!old) this.#reopen(); // the stream has to bring this one, too
    if (!old || old.generation < token.generation) this.#options.onChange(name, token);
  }

  async #call(method: string, timeout: number, request: object): Promise<Reply> {
    const once = (c: grpc.Client) => new Promise<Reply>((resolve, reject) => {
      const m = this.#service[method]!;
      c.makeUnaryRequest(m.path, m.requestSerialize, m.responseDeserialize as (b: Buffer) => Reply, request,
        { deadline: Date.now() + timeout }, (err, reply) => err ? reject(err) : resolve(reply!));
    });
    for (let more = this.#addrs.length; ; more--) { // once more if the channel was replaced, and at each address while none is known to answer
      const channel = this.#channel;
      try {
        return await once(channel);
      } catch (err) {
        if (more < 1 || (channel === this.#channel && (more === 1 || this.#answers || codeOf(err) !== "UNAVAILABLE"))) throw err;
        this.#redial(channel);
      }
    }
  }

  /** A channel to the next address, with the certificate that is in the files by now. */
  #dial(): grpc.Client {
    const { ca, key, cert, serverName } = this.#options;
    const addr = this.#addrs[this.#dials++ % this.#addrs.length]!;
    const options: grpc.ChannelOptions = { // a dead peer is noticed; a new channel is a new connection
      "grpc.keepalive_time_ms": 30_000, "grpc.keepalive_timeout_ms": 10_000, "grpc.use_local_subchannel_pool": 1,
    };
    if (addr.startsWith("unix:")) return new grpc.Client(addr, grpc.credentials.createInsecure(), options);
    const verify: grpc.VerifyOptions = {};
    if (serverName.startsWith("spiffe://")) {
      verify.checkServerIdentity = (_, peer) => peer.subjectaltname?.split(", ").includes("URI:" + serverName) ? undefined : new Error("not " + serverName);
    } else if (serverName) {
      options["grpc.ssl_target_name_override"] = serverName;
    }
    return new grpc.Client(addr, grpc.credentials.createSsl(readFileSync(ca), readFileSync(key), readFileSync(cert), verify), options);
  }

  #reopen(): void {
    this.#woken = true;
    this.#changes.emit("change");
    this.#stream?.cancel();
  }

  /** Follows one stream for all names that have a token, opened anew when there is another name, or when it ends. */
  async #follow(): Promise<void> {
    for (let failures = 0; !this.#closed;) {
      this.#woken = false;
      const names = [...this.#slots].filter(([, slot]) => slot.token).map(([name]) => name).slice(0, 256);
      const channel = this.#channel;
      try {
        if (names.length > 0) {
          const m = this.#service["Subscribe"]!;
          this.#stream = channel.makeServerStreamRequest(m.path, m.requestSerialize, m.responseDeserialize as (b: Buffer) => Event,
            { selectors: names.map((credential) => ({ credential })) });
          for await (const event of this.#stream) {
            failures = 0;
            this.#answers = true;
            this.#take(event);
          }
        }
      } catch {
        // The broker is down, drains, or refuses the stream: there are the last good tokens, and GetToken.
      }
      this.#answers = false;
      if (await this.#until(() => this.#woken, names.length > 0 ? jitter(failures) : FOREVER)) {
        await this.#until(() => this.#closed, 50); // several new names make one new stream
        continue;
      }
      failures++;
      this.#redial(channel);
    }
  }

  #redial(old: grpc.Client): void {
    if (this.#channel !== old) return;
    try {
      this.#channel = this.#dial();
      old.close();
    } catch {
      // Somebody is replacing the certificate.
    }
  }

  #take({ update, removed }: Event): void {
    if (update?.token) return this.#keep(update.selector.credential, update);
    const slot = this.#slots.get((update ?? removed)?.selector.credential ?? "");
    if (slot) slot.askAt = 0; // there is none, or none for us: token() has to ask why
  }

  /** Waits until something is so, or for ms; true if it is so. */
  #until(so: () => boolean, ms: number): Promise<boolean> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#changes.off("change", look);
        resolve(so());
      };
      const look = () => { if (so()) end(); };
      const timer = setTimeout(end, ms);
      this.#changes.on("change", look);
      look();
    });
  }
}

function codeOf(err: unknown): string {
  return grpc.status[(err as grpc.ServiceError).code] ?? "UNKNOWN";
}

function ms(t: Time | undefined): number {
  return t ? Number(t.seconds) * 1000 + t.nanos / 1e6 : 0;
}

/** Full jitter, from 100 ms doubling to 30 s. */
function jitter(failures: number): number {
  return Math.random() * Math.min(30_000, 100 * 2 ** Math.min(failures, 10));
}
