/**
 * A worker: each line of standard input is a job, the name of a credential and a URL to get with its token.
 *
 *     echo example/reports https://api.example.com/reports | node dist/worker.js
 */
import { createInterface } from "node:readline";
import { Client } from "./tokenbroker.js";
import { open } from "./tokenbroker_http.js";

async function work(broker: Client, name: string, url: string): Promise<void> {
  try {
    const reply = await open(broker, name, url);
    await reply.arrayBuffer();
    console.log(reply.ok ? "done" : "refused", reply.status, url);
  } catch (err) {
    console.log("failed", url, (err as Error).message);
  }
}

const broker = new Client({ onChange: (name, token) => console.log("fresh", name, String(token.generation)) });
try {
  for await (const line of createInterface({ input: process.stdin })) {
    const [name = "", url = ""] = line.trim().split(/\s+/);
    await work(broker, name, url);
  }
} finally {
  await broker.close();
}
