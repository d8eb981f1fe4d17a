// Markdown as safe markup. Only the blocks that changed are made again, so that a text may stream and be selected.

import DOMPurify from "./vendor/purify.es.mjs";
import { Lexer, Parser, marked } from "./vendor/marked.esm.js";

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

marked.use({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escaped(text), // who writes markup in a reply wants it to be read
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
  },
});

// What a reply may show: text. Pictures would be fetched from anywhere, forms and styles would pretend to be ours.
const RULES = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre",
    "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["href", "title", "start", "align"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_TRUSTED_TYPE: true,
};

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
  if (node.tagName === "PRE" || node.tagName === "TABLE") node.setAttribute("tabindex", "0"); // they scroll
});

/** Show `text` in `element`, which holds nothing else. */
export function show(element, text) {
  const tokens = Lexer.lex(text, marked.defaults).filter((token) => token.type !== "space");
  tokens.forEach((token, place) => {
    const block = element.children[place];
    if (block?.source === token.raw) return;
    const made = document.createElement("div");
    made.source = token.raw;
    made.innerHTML = DOMPurify.sanitize(Parser.parse([token], marked.defaults), RULES);
    if (block) block.replaceWith(made);
    else element.append(made);
  });
  while (element.children.length > tokens.length) element.lastChild.remove();
}
