// Package web is what a browser sees: the page of a consent by link, and how it ended.
//
//	GET  /consent/l/{link}       what is asked for, and a button; changes nothing
//	POST /consent/l/{link}       the button: binds the browser, and sends it to the provider (303)
//	GET  /consent/callback       where the provider sends it back to; always goes on (303) to one of
//	GET  /consent/done           how it went, to the browser that went through it
//	GET  /consent/stopped/{why}  why it went no further
//	GET  /consent/style.css
//
// # Promises
//
//   - A link that is merely looked at, by a scanner or a prefetch, is as good as before.
//   - The provider's answer counts in the browser that pressed the button and in no other: a __Host- cookie says which that is.
//   - No page that stays in the browser's history has a code or a state in its URL, and no request is logged with its URL.
//   - The pages work without JavaScript, load nothing from elsewhere, can't be framed, and send no Referer.
//   - A redirect goes to the provider's authorization endpoint or to a page here, never to a place that the request names.
//
// It speaks for one host: a request for another one is refused. Behind a proxy all browsers have the proxy's address and share its rate.
package web
