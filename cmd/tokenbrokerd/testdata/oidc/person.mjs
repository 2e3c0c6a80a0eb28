// The person at the browser. By itself it logs in as the request's login_hint, or else as OIDC_PERSON, and consents to whatever is asked;
// with neither it declines. With OIDC_BROWSER=1 a real browser does that, on two plain pages: one asks for a name, one whether to allow.
const env = process.env;

// answer handles a request under /interaction/.
export async function answer(provider, req, res) {
  const details = await provider.interactionDetails(req, res);
  if (env.OIDC_BROWSER !== '1') return finish(provider, req, res, details, details.params.login_hint ?? env.OIDC_PERSON);
  if (req.method !== 'POST') return page(res, details);
  const form = new URLSearchParams(await text(req));
  if (form.get('answer') === 'deny') return finish(provider, req, res, details, undefined);
  return finish(provider, req, res, details, form.get('login') ?? details.session?.accountId);
}

// finish ends the interaction as a person wants it; no person declines.
async function finish(provider, req, res, { prompt, params, session, grantId }, person) {
  if (!person) {
    return provider.interactionFinished(req, res, { error: 'access_denied', error_description: 'the person declined' });
  }
  if (prompt.name === 'login') {
    return provider.interactionFinished(req, res, { login: { accountId: person } });
  }
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  for (const [resource, scopes] of Object.entries(prompt.details.missingResourceScopes ?? {})) {
    grant.addResourceScope(resource, scopes.join(' '));
  }
  return provider.interactionFinished(req, res, { consent: { grantId: await grant.save() } });
}

function page(res, { uid, prompt, params }) {
  const field = prompt.name === 'login' ? '<label>Name <input name="login" autofocus required></label>' : `<p>${escape(params.scope)}</p>`;
  res.setHeader('Content-Type', 'text/html; charset=utf-8');
  res.end(`<!doctype html><html lang="en"><title>${prompt.name}</title><h1>${prompt.name}</h1>
<form method="post" action="/interaction/${uid}">${field}
<button name="answer" value="allow">${prompt.name === 'login' ? 'Log in' : 'Allow'}</button>
<button name="answer" value="deny" formnovalidate>Deny</button></form>`);
}

async function text(req) {
  let body = '';
  for await (const chunk of req) body += chunk;
  return body;
}

function escape(s) {
  return String(s ?? '').replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}
