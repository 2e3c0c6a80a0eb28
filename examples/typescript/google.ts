/**
 * A worker on Google's own library, which knows nothing of tokenbroker. Each line of standard input is a URL to get with a token.
 *
 *     tokenctl agent --metadata 127.0.0.1:8080 --metadata-credential google/reports-drive &
 *     echo https://www.googleapis.com/drive/v3/about?fields=user | GCE_METADATA_HOST=127.0.0.1:8080 node dist/google.js
 *
 * The library asks for the scope that is named here; the credential has to be one that may have it.
 */
import { createInterface } from "node:readline";
import { GoogleAuth } from "google-auth-library";

const auth = new GoogleAuth({ scopes: process.env.SCOPES ?? "https://www.googleapis.com/auth/drive.readonly" });

for await (const url of createInterface({ input: process.stdin })) {
  try {
    const reply = await auth.request({ url });
    console.log("done", reply.status, url);
  } catch (err) {
    const { status, message } = err as Error & { status?: number };
    console.log(status ? "refused" : "failed", status ?? "", url, message.split("\n")[0]);
  }
}
