// Before a page's own scripts: what `settled.js` has to know of what they do. Counts requests under way, so that
// "nothing moves" can be told from "waits for an answer"; notes whether anybody listens to scrolling; keeps shadow trees
// that are closed.
(() => {
  const watch = { open: 0, scrolls: false, shadows: new WeakMap() };
  Object.defineProperty(window, Symbol.for('switchroom'), { value: watch });
  const ended = () => setTimeout(() => watch.open--, 0);
  const fetchWas = window.fetch;
  if (fetchWas) window.fetch = function (...a) {
    watch.open++;
    return fetchWas.apply(this, a).finally(ended);
  };
  const sendWas = XMLHttpRequest.prototype.send;
  XMLHttpRequest.prototype.send = function (...a) {
    watch.open++;
    this.addEventListener('loadend', ended, { once: true });
    return sendWas.apply(this, a);
  };
  const listenWas = EventTarget.prototype.addEventListener;
  EventTarget.prototype.addEventListener = function (kind, ...a) {
    if (kind === 'scroll' || kind === 'scrollend') watch.scrolls = true;
    return listenWas.call(this, kind, ...a);
  };
  const observeWas = window.IntersectionObserver && IntersectionObserver.prototype.observe;
  if (observeWas) IntersectionObserver.prototype.observe = function (...a) {
    watch.scrolls = true;
    return observeWas.apply(this, a);
  };
  const attachWas = Element.prototype.attachShadow;
  Element.prototype.attachShadow = function (...a) {
    const root = attachWas.apply(this, a);
    watch.shadows.set(this, root);
    watch.shadowed = true;
    return root;
  };
})();
