// The grant of RFC 7523 §2.1, which the library leaves to its users. The assertion is verified by jose, with the client's own keys.
import { createLocalJWKSet, jwtVerify } from 'jose';
import { errors } from 'oidc-provider';

export const jwtBearer = 'urn:ietf:params:oauth:grant-type:jwt-bearer';

export function addJWTBearer(provider) {
  const handler = async (ctx) => {
    const { client, params } = ctx.oidc;
    const { payload, protectedHeader } = await verified(provider, client, params.assertion);
    if (protectedHeader.typ !== 'JWT') throw new errors.InvalidGrant('typ');
    if (payload.exp - payload.iat > 3600 || payload.exp <= payload.iat) throw new errors.InvalidGrant('life');
    const scope = payload.scope ?? params.scope ?? '';
    const grant = new provider.Grant({ accountId: payload.sub, clientId: client.clientId });
    grant.addOIDCScope(scope);
    const token = new provider.AccessToken({ accountId: payload.sub, client, grantId: await grant.save(), gty: 'jwt_bearer', scope });
    ctx.body = { access_token: await token.save(), expires_in: token.expiration, token_type: 'Bearer', scope };
  };
  provider.registerGrantType(jwtBearer, handler, ['assertion', 'scope']);
}

async function verified(provider, client, assertion) {
  try {
    return await jwtVerify(assertion, createLocalJWKSet(client.jwks), {
      issuer: client.clientId,
      audience: [provider.issuer, `${provider.issuer}/token`],
      requiredClaims: ['iss', 'sub', 'aud', 'exp', 'iat', 'jti'],
      clockTolerance: 0,
    });
  } catch (err) {
    throw new errors.InvalidGrant(err.message);
  }
}
