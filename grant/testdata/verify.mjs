// Verifies a JWT with the jose library and prints what it found in it.
// Usage: node verify.mjs FOLDER-OF-JOSE < {"token", "jwk", "algorithm", "issuer", "audience"}
import { pathToFileURL } from 'node:url';
import { join } from 'node:path';
import { readFileSync } from 'node:fs';

const { importJWK, jwtVerify } = await import(pathToFileURL(join(process.argv[2], 'dist/webapi/index.js')));
const asked = JSON.parse(readFileSync(0, 'utf8'));
const key = await importJWK(asked.jwk, asked.algorithm);
const { payload, protectedHeader } = await jwtVerify(asked.token, key, {
  algorithms: [asked.algorithm],
  issuer: asked.issuer,
  audience: asked.audience,
  typ: 'JWT',
  requiredClaims: ['iss', 'aud', 'iat', 'exp'],
});
process.stdout.write(JSON.stringify({ payload, protectedHeader }));
