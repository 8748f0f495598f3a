// Waits until a page has settled: loaded, nothing asked for, no change of the document for `quiet` ms, and some text
// there that is no "Loading…"; `most` ms at most. Where somebody listens to scrolling, it scrolls on while that brings
// more. The page's HTML and its cookies come along: each call of the browser costs the driver milliseconds of CPU.
([quiet, most]) => new Promise(done => {
  const watch = window[Symbol.for('switchroom')] || { open: 0 };
  const begun = performance.now();
  const SHORT = 80, PATIENCE_MS = 600, SCROLLS = 30;
  let moved = begun, scrolled = 0, height = 0;
  const waits = /^\W*(?:(?:now )?loading|please wait|one moment|just a moment|lade|wird geladen|nalagam|nalaganje|chargement|cargando|caricamento)\b/i;
  const seen = new MutationObserver(() => { moved = performance.now(); });
  seen.observe(document, { subtree: true, childList: true, characterData: true });

  const look = () => {
    const now = performance.now();
    const late = now - begun >= most;
    const loaded = document.readyState === 'complete' || now - begun > 3000;
    const still = loaded && watch.open <= 0 && now - moved >= quiet;
    if (!late && !(still && ready(now - begun))) {
      setTimeout(look, Math.max(20, Math.min(quiet - (now - moved), 60)));
    } else if (!late && (watch.scrolls || window.onscroll) && more()) {
      moved = performance.now();
      setTimeout(look, quiet);
    } else {
      seen.disconnect();
      const root = watch.shadowed ? flat(document.documentElement) : document.documentElement;
      done({ url: location.href, html: root.outerHTML, cookie: document.cookie });
    }
  };
  // Not innerText: that would lay the page out. A few words may be all there is, or all there is yet.
  const ready = ms => {
    const words = text(document.body || document, SHORT);
    if (words.length >= SHORT) return true;
    return words !== '' && ms >= PATIENCE_MS && !waits.test(words);
  };
  const text = (under, most) => {
    let found = '';
    const walk = document.createTreeWalker(under, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, {
      acceptNode: node => /^(SCRIPT|STYLE|NOSCRIPT|TEMPLATE)$/.test(node.tagName) ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT,
    });
    while (found.length < most && walk.nextNode()) {
      const node = walk.currentNode;
      if (node.nodeType === Node.TEXT_NODE) found += node.data.trim();
      else if (watch.shadowed && shadow(node)) found += text(shadow(node), most - found.length);
    }
    return found;
  };
  const shadow = node => node.shadowRoot || watch.shadows.get(node);
  // Scrolls to the end once more, as long as the page grew since the last time.
  const more = () => {
    const tall = document.documentElement.scrollHeight;
    if (tall <= height || scrolled >= SCROLLS) return false;
    height = tall;
    scrolled++;
    window.scrollTo(0, tall);
    return true;
  };
  // A copy in which shadow trees stand where their hosts are, with what is slotted in its place.
  const flat = top => {
    const inert = document.implementation.createHTMLDocument('');
    const copy = from => {
      const to = inert.importNode(from, false);
      const root = from.nodeType === Node.ELEMENT_NODE && shadow(from);
      const slotted = from.tagName === 'SLOT' && from.assignedNodes();
      for (const node of root ? root.childNodes : slotted && slotted.length ? slotted : from.childNodes) to.append(copy(node));
      return to;
    };
    return copy(top);
  };
  look();
})
