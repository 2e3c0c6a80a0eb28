// A certified OAuth 2.0 server for the end-to-end tests: oidc-provider over HTTPS on a loopback port, with a login that
// answers itself. It is as strict as its authors made it: every refresh rotates, and a refresh token that comes twice
// kills its whole family.
//
// Environment:
//   OIDC_CERT, OIDC_KEY    PEM files of the server certificate; required
//   OIDC_PORT              port on 127.0.0.1; 0 or absent = any
//   OIDC_ACCESS_TOKEN_TTL  life of access tokens in seconds; absent = 3
//   OIDC_LOG               file that the log lines are appended to; absent = standard output
//   OIDC_CLIENT_JWKS       file with the public keys of the client "key-jwt" (a JWK set); absent = there is no such client
//   OIDC_REDIRECT          redirect URI of the client "web", which is on another site; absent = there is no such client
//   OIDC_SECRETS           file that each code, verifier and token is appended to, one "KIND VALUE" a line, for a test that looks for
//                          them where they must not be; absent = they are kept nowhere
//   OIDC_PERSON            who consents where no login_hint says so; absent = the person declines
//   OIDC_BROWSER           1 = a person with a browser logs in and consents on pages, see person.mjs
//
// The first line on standard output is {"event":"ready","issuer":…,"clients":[…]}. Log lines are JSON objects, too:
//   {"event":"token", …}   one per request to the token endpoint: time of arrival, grant_type, client_id, status, error,
//                          and hashes (SHA-256, hex) of the refresh token that came and of the tokens that left
//   {"event":"authorization", …}   one per visit of a browser to the authorization endpoint, with the referer that it sent
//   {"event":"refresh_token.consumed" | "refresh_token.destroyed" | "grant.revoked" | "server_error", …}
//
// It ends on SIGTERM and when standard input closes, so that it can't outlive the test that started it.
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as https from 'node:https';

console.info = console.error; // the library's notices; standard output is for our lines
const { Provider, errors: { InvalidTarget } } = await import('oidc-provider');
const { answer } = await import('./person.mjs');
const { addJWTBearer, jwtBearer } = await import('./jwt-bearer.mjs');

const env = process.env;
const port = Number(env.OIDC_PORT ?? 0);
const ttl = Number(env.OIDC_ACCESS_TOKEN_TTL ?? 3);
for (const name of ['OIDC_CERT', 'OIDC_KEY']) {
  if (!env[name]) fail(`${name} is not set: give the path of a PEM file`);
}
if (!Number.isInteger(ttl) || ttl < 1) fail('OIDC_ACCESS_TOKEN_TTL must be a whole number of seconds, 1 or more');

const scope = 'openid email offline_access reports.read reports.write';
const deviceCode = 'urn:ietf:params:oauth:grant-type:device_code';
const secrets = {
  'basic-plain': ['client_secret_basic', 'correct-horse-battery-staple-0001'],
  'basic-special': ['client_secret_basic', 'a/b+c d%2F&e=f:g~h!"-0002'], // right only if form-encoded before Basic
  'id:with space': ['client_secret_basic', 'colon-and-blank-in-the-id-0003'],
  'post-plain': ['client_secret_post', 'correct-horse-battery-staple-0004'],
  'post-special': ['client_secret_post', 'a/b+c d%2F&e=f:g~h!"-0005'],
  'secret-jwt': ['client_secret_jwt', 'long-enough-for-an-HMAC-with-SHA-256-0006'],
};
const native = {
  application_type: 'native', // lets redirects go to any port of the loopback address (RFC 8252 §7.3)
  redirect_uris: ['http://127.0.0.1/callback'],
  id_token_signed_response_alg: 'ES256',
  scope,
};
const usual = ['authorization_code', 'refresh_token', 'client_credentials'];
const clients = Object.entries(secrets).map(([client_id, [token_endpoint_auth_method, client_secret]]) => ({
  ...native, client_id, client_secret, token_endpoint_auth_method, grant_types: usual,
}));
clients.push({ ...native, client_id: 'public', token_endpoint_auth_method: 'none', grant_types: ['authorization_code', 'refresh_token', deviceCode] });
clients.push({ ...native, client_id: 'device', client_secret: secrets['basic-plain'][1], token_endpoint_auth_method: 'client_secret_basic',
  grant_types: ['refresh_token', deviceCode], redirect_uris: [], response_types: [] });
if (env.OIDC_CLIENT_JWKS) {
  clients.push({ ...native, client_id: 'key-jwt', token_endpoint_auth_method: 'private_key_jwt', jwks: JSON.parse(fs.readFileSync(env.OIDC_CLIENT_JWKS)),
    grant_types: [...usual, jwtBearer] });
}
if (env.OIDC_REDIRECT) {
  clients.push({ ...native, client_id: 'web', client_name: 'Reports', client_secret: secrets['basic-plain'][1], application_type: 'web',
    token_endpoint_auth_method: 'client_secret_basic', grant_types: ['authorization_code', 'refresh_token'], redirect_uris: [env.OIDC_REDIRECT] });
}

const { privateKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
const configuration = {
  clients,
  scopes: scope.split(' '),
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256' }] },
  cookies: { keys: [crypto.randomUUID()] },
  clockTolerance: 0,
  rotateRefreshToken: true, // the default spares confidential clients most rotations
  issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
  expiresWithSession: () => false,
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.org` }) }),
  claims: { openid: ['sub'], email: ['email'] },
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  ttl: { AccessToken: ttl, IdToken: ttl, ClientCredentials: ttl, RefreshToken: 24 * 3600, Grant: 24 * 3600, Session: 3600, Interaction: 600 },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    revocation: { enabled: true },
    deviceFlow: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource) => {
        if (!resource.startsWith('https://api.example/')) throw new InvalidTarget();
        return { scope: 'reports.read reports.write', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: ttl, jwt: { sign: { alg: 'ES256' } } };
      },
    },
  },
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'none'],
};

const server = https.createServer({ cert: fs.readFileSync(env.OIDC_CERT), key: fs.readFileSync(env.OIDC_KEY) });
server.on('error', (err) => fail(err.message));
server.listen(port, '127.0.0.1', () => serve(`https://127.0.0.1:${server.address().port}`));

process.on('SIGTERM', stop);
process.stdin.on('end', stop).on('error', stop).resume();

function serve(issuer) {
  const provider = new Provider(issuer, configuration);
  provider.use(logTokenRequests);
  addJWTBearer(provider);
  for (const event of ['refresh_token.consumed', 'refresh_token.destroyed']) {
    provider.on(event, (token) => log({ event, time: now(), refresh_token_sha256: hash(token.jti), client_id: token.clientId, grant_id: token.grantId }));
  }
  provider.on('grant.revoked', (ctx, grant_id) => log({ event: 'grant.revoked', time: now(), grant_id }));
  provider.on('server_error', (ctx, err) => log({ event: 'server_error', time: now(), error: String(err) }));

  const callback = provider.callback();
  server.on('request', (req, res) => {
    if (req.url.startsWith('/auth?')) log({ event: 'authorization', time: now(), referer: req.headers.referer });
    if (!req.url.startsWith('/interaction/')) return callback(req, res);
    answer(provider, req, res).catch((err) => {
      log({ event: 'server_error', time: now(), error: String(err) });
      res.writeHead(500).end();
    });
  });
  const listed = clients.map(({ client_id, client_secret, token_endpoint_auth_method }) => ({ client_id, client_secret, token_endpoint_auth_method }));
  process.stdout.write(`${JSON.stringify({ event: 'ready', issuer, clients: listed })}\n`);
}

async function logTokenRequests(ctx, next) {
  const time = now();
  await next();
  if (ctx.oidc?.route !== 'token') return;
  const { params = {}, client } = ctx.oidc;
  const { error, access_token, refresh_token } = ctx.body ?? {};
  keep({ ...params, ...ctx.body, basic: ctx.get('authorization').replace(/^Basic /, '') });
  log({
    event: 'token',
    time,
    grant_type: params.grant_type,
    client_id: client?.clientId ?? params.client_id,
    grant_id: ctx.oidc.entities.Grant?.jti,
    refresh_token_sha256: hash(params.refresh_token),
    status: ctx.status,
    error,
    issued_access_token_sha256: hash(access_token),
    issued_refresh_token_sha256: hash(refresh_token),
  });
}

function keep(seen) {
  if (!env.OIDC_SECRETS) return;
  for (const kind of ['code', 'code_verifier', 'client_secret', 'basic', 'access_token', 'refresh_token', 'id_token']) {
    if (seen[kind]) fs.appendFileSync(env.OIDC_SECRETS, `${kind} ${seen[kind]}\n`);
  }
}

function log(line) {
  const text = `${JSON.stringify(line)}\n`; // members that are undefined are left out
  if (env.OIDC_LOG) fs.appendFileSync(env.OIDC_LOG, text);
  else process.stdout.write(text);
}

function hash(token) {
  return token && crypto.createHash('sha256').update(token).digest('hex');
}

function now() {
  return new Date().toISOString();
}

function stop() {
  process.exit(0);
}

function fail(message) {
  console.error(`oidc: ${message}`);
  process.exit(1);
}
