/// <reference lib="dom" />
/// <reference lib="dom.iterable" />
import type { DevToolbarApp } from 'astro';
import {
  TOOLBAR_HEADER,
  TOOLBAR_PATH,
  type ShownEntry,
  type ShownRequest,
  type ShownSession,
  type ToolbarQuestion,
} from './toolbar-protocol.ts';

/** The app in Astro's dev toolbar that shows the session of the page. Runs in the browser, and only in `astro dev`. */
const app: DevToolbarApp = {
  init(canvas, events) {
    const panel = createPanel();
    canvas.append(element('style', { textContent: STYLE }), panel.window);
    events.onToolbarPlacementUpdated(({ placement }) => panel.window.setAttribute('placement', placement));
    events.onToggled(({ state }) => {
      if (state) void panel.refresh();
    });
  },
};

export default app;

/** Does something, shows what has become of the session, and says what was done. */
type Act = (work: () => Promise<unknown>, done?: string) => Promise<void>;

function createPanel(): { window: HTMLElement; refresh(): Promise<void> } {
  const summary = element('p', { className: 'summary' });
  const status = element('p', { className: 'status', role: 'status', tabIndex: -1 });
  const entries = element('div');
  const requests = element('div');
  const actions = element('div', { className: 'actions' });

  const load = async (): Promise<void> => {
    const { session, hasCookie, requests: shown } = (await ask({ action: 'show' })) as ShownSession;
    summary.replaceChildren(...summaryOf(session, hasCookie));
    entries.replaceChildren(...(session ? [entriesTable(session.entries, act)] : []));
    requests.replaceChildren(...(hasCookie ? requestsPart(shown) : []));
    actions.hidden = session === null;
  };
  const act: Act = async (work, done = '') => {
    const { activeElement: pressed } = rootOf(window);
    const results = [await settle(work), await settle(load)];
    const failure = results.find((message) => message !== undefined);
    status.textContent = failure ?? done;
    status.classList.toggle('failed', failure !== undefined);
    // The pressed button may be gone. The keyboard must not start again at the top of the page.
    if (pressed && !rootOf(window).activeElement?.checkVisibility()) status.focus();
  };
  const refresh = (): Promise<void> => act(async () => {});

  actions.append(
    toolbarButton('Regenerate', 'gray', 'Gives the session a new id, and keeps its values.', () =>
      act(() => ask({ action: 'regenerate' }), 'The session has a new id.'),
    ),
    toolbarButton('Expire now', 'gray', 'Removes the session. The browser keeps its cookie.', () =>
      act(() => ask({ action: 'expire' }), 'The session has expired.'),
    ),
    toolbarButton('Destroy', 'red', 'Destroys the session and removes its cookie, like a sign-out.', () =>
      act(() => ask({ action: 'destroy' }), 'The session is destroyed.'),
    ),
  );

  const header = element('header');
  header.append(element('h1', { textContent: 'Session' }), button('Refresh', 'Refresh', refresh));
  const window = element('astro-dev-toolbar-window');
  const body = element('div', { className: 'body' });
  body.append(summary, actions, status, entries, requests);
  window.append(header, body);
  return { window, refresh };
}

function rootOf(window: HTMLElement): ShadowRoot {
  return window.getRootNode() as ShadowRoot;
}

/** Waits for some work. Resolves to the message of its error, if it fails. */
async function settle(work: () => Promise<unknown>): Promise<string | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Asks the server about the session of this page's cookie. */
async function ask(question: ToolbarQuestion): Promise<unknown> {
  const { BASE_URL } = (import.meta as unknown as { env: { BASE_URL: string } }).env;
  const response = await fetch(BASE_URL.replace(/\/$/, '') + TOOLBAR_PATH, {
    method: 'POST',
    headers: { 'content-type': 'application/json', [TOOLBAR_HEADER]: '1' },
    body: JSON.stringify(question),
  });
  if (!response.ok) throw new Error((await response.text()).slice(0, 300) || `The server answered ${response.status}.`);
  return response.json();
}

// --------------------------------------------------------------------------------------------------------------- the parts

function summaryOf(session: ShownSession['session'], hasCookie: boolean): (Node | string)[] {
  if (!session) {
    const gone = 'The session of this cookie does not exist: it has expired, or was destroyed.';
    return [hasCookie ? gone : 'This browser has no session.'];
  }
  const handle = element('code', { textContent: session.handle, title: 'Identifies the session. It is not the id.' });
  const began = session.created ? ['created ', time(session.created), ', '] : [];
  const ends = session.expires ? ['expires ', time(session.expires)] : ['has no known expiry'];
  return [handle, ' ', ...began, ...ends];
}

function entriesTable(entries: ShownEntry[], act: Act): Node {
  if (entries.length === 0) return element('p', { className: 'empty', textContent: 'The session has no values.' });
  const rows = entries.flatMap(({ key, type, bytes, expires }) => {
    // In a row of its own, so that a long value takes no space from the keys.
    const value = element('pre', { tabIndex: 0, ariaLabel: `Value of ${key}` });
    const valueRow = row([element('td', { colSpan: 5 })]);
    valueRow.hidden = true;
    valueRow.firstChild!.appendChild(value);
    const show = button('Show', `Show the value of ${key}`, async () => {
      if (valueRow.hidden) {
        const failure = await settle(async () => {
          value.textContent = ((await ask({ action: 'reveal', key })) as { value: string }).value;
        });
        // The session may be gone: show what is left.
        if (failure !== undefined) return act(() => Promise.reject(new Error(failure)));
      }
      valueRow.hidden = !valueRow.hidden;
      show.textContent = valueRow.hidden ? 'Show' : 'Hide';
      show.ariaLabel = `${show.textContent} the value of ${key}`;
    });
    const remove = button('Delete', `Delete ${key}`, () =>
      act(() => ask({ action: 'delete', key }), `${clip(key)} is deleted.`),
    );
    const buttons = element('span', { className: 'buttons' });
    buttons.append(show, remove);
    const name = element('th', { scope: 'row' });
    name.append(keyElement(key));
    return [row([name, type, sizeText(bytes), expires ? time(expires) : 'with the session', buttons]), valueRow];
  });
  return table('Values', ['Key', 'Type', 'Size', 'Expires', ''], rows);
}

/** One or more keys. What does not fit into three lines is cut off. */
function keyElement(text: string): HTMLElement {
  return element('span', { className: 'key', textContent: text, title: text });
}

function requestsPart(requests: ShownRequest[]): Node[] {
  const head = element('h2', { textContent: 'Last requests' });
  if (requests.length === 0) {
    const text = 'No request of this session has asked the backend yet.';
    return [head, element('p', { className: 'empty', textContent: text })];
  }
  const rows = requests.slice(0, SHOWN_REQUESTS).map(({ method, path, at, reads, writes, operations, events }) => {
    const keys = element('span', { className: 'keys' });
    if (reads.length > 0) keys.append(keyElement(`reads ${reads.map(clip).join(', ')}`));
    if (writes.length > 0) keys.append(keyElement(`writes ${writes.map(clip).join(', ')}`));
    const asked = element('span', { className: 'tags' });
    for (const { operation, ms, failed } of operations) {
      const text = `${VERBS[operation] ?? operation}${ms === undefined ? '' : ` ${ms.toFixed(1)} ms`}`;
      asked.append(element('span', { textContent: failed ? `${text}, failed` : text, className: failed ? 'bad' : '' }));
    }
    for (const event of events)
      asked.append(element('span', { textContent: EVENTS[event] ?? event, className: 'bad' }));
    const request = element('th', { scope: 'row' });
    request.append(element('span', { className: 'method', textContent: method }), ` ${path}`);
    return row([request, new Date(at).toLocaleTimeString(), keys, asked]);
  });
  return [head, table('Last requests', ['Request', 'At', 'Keys', 'Backend'], rows)];
}

const SHOWN_REQUESTS = 20;

const VERBS: Readonly<Record<string, string>> = { read: 'read', patch: 'write', destroy: 'destroy' };

const EVENTS: Readonly<Record<string, string>> = {
  'destroyed-write': 'write dropped: the session was destroyed',
  'stale-write': 'write dropped: the session was read too long ago',
  conflict: 'conflict: tried again',
  'unknown-read': 'saved as a whole',
  'corrupt-field': 'corrupt value left out',
  migrated: 'migrated',
  eviction: 'evicted a session',
};

// ---------------------------------------------------------------------------------------------------------------- elements

function element<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  properties: Partial<HTMLElementTagNameMap[Name]> = {},
): HTMLElementTagNameMap[Name] {
  return Object.assign(document.createElement(name), properties);
}

function button(text: string, label: string, onclick: () => Promise<void>): HTMLButtonElement {
  return element('button', { textContent: text, ariaLabel: label, type: 'button', onclick: () => void onclick() });
}

function toolbarButton(text: string, style: 'gray' | 'red', title: string, onclick: () => Promise<void>): HTMLElement {
  const it = element('astro-dev-toolbar-button', { textContent: text, title, onclick: () => void onclick() });
  it.setAttribute('button-style', style);
  it.setAttribute('size', 'medium');
  return it;
}

function table(caption: string, heads: string[], rows: Node[]): Node {
  const head = element('tr');
  head.append(...heads.map((text) => element('th', { textContent: text, scope: 'col' })));
  const [top, body] = [element('thead'), element('tbody')];
  top.append(head);
  body.append(...rows);
  const it = element('table', { ariaLabel: caption, className: caption.toLowerCase() });
  it.append(top, body);
  return it;
}

function row(cells: (Node | string)[]): HTMLTableRowElement {
  const it = element('tr');
  for (const cell of cells) {
    if (cell instanceof HTMLTableCellElement) it.append(cell);
    else {
      const wrapped = element('td');
      wrapped.append(cell);
      it.append(wrapped);
    }
  }
  return it;
}

function time(iso: string): HTMLElement {
  const date = new Date(iso);
  return element('time', { dateTime: iso, title: iso, textContent: date.toLocaleString([], TIME) });
}

const TIME: Intl.DateTimeFormatOptions = { dateStyle: 'medium', timeStyle: 'medium' };

function clip(text: string): string {
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

function sizeText(bytes: number): string {
  return bytes < 1024 ? `${bytes} B` : `${(bytes / 1024).toFixed(1)} KiB`;
}

const STYLE = `
  :host { color-scheme: light dark; }
  astro-dev-toolbar-window {
    --text: #3a3d47; --strong: #14161c; --soft: #6a6f7d; --line: #e2e4ea; --fill: #f3f4f7; --bad: #a31942; --bad-fill: #fde8ee; --focus: #6d28d9;
    width: min(760px, 100%); max-height: min(600px, calc(100vh - 96px)); padding: 20px 24px;
    background: #fff; border-color: var(--line); color: var(--text); font-size: 14px; line-height: 1.45;
  }
  @media (prefers-color-scheme: dark) {
    astro-dev-toolbar-window {
      --text: #c3c6d1; --strong: #fff; --soft: #989dac; --line: #343841; --fill: #22252d; --bad: #ffa9c0; --bad-fill: #4a1a2b; --focus: #c4a1ff;
      background: #13151a;
    }
  }
  header { display: flex; justify-content: space-between; align-items: center; }
  h1, h2 { margin: 0; color: var(--strong); font-weight: 600; }
  h1 { font-size: 20px; }
  h2 { font-size: 15px; margin-top: 20px; }
  .body { overflow: auto; margin-right: -12px; padding-right: 12px; }
  p { margin: 8px 0; }
  .empty, .summary { color: var(--soft); }
  .status { color: var(--strong); overflow-wrap: anywhere; }
  .status:empty { margin: 0; }
  .status.failed { color: var(--bad); }
  code, pre { font: 12px/1.5 ui-monospace, Menlo, Consolas, monospace; color: var(--text); }
  code { background: var(--fill); border-radius: 4px; padding: 2px 5px; }
  pre { contain: inline-size; margin: 0; max-height: 140px; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
  table { width: 100%; border-collapse: collapse; margin: 8px 0; }
  th, td { text-align: left; vertical-align: top; padding: 6px 12px 6px 0; border-top: 1px solid var(--line); font-weight: 400; }
  td:last-child { padding-right: 0; }
  thead th { border: 0; color: var(--soft); font-size: 12px; padding-bottom: 4px; }
  tbody th { color: var(--strong); font-weight: 500; }
  tbody td { white-space: nowrap; }
  tbody td:has(pre) { border: 0; padding-top: 0; white-space: normal; }
  .key { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; max-width: 240px; overflow: hidden; overflow-wrap: break-word; }
  td:has(.keys) { width: 30%; white-space: normal; }
  .requests tbody th { min-width: 140px; overflow-wrap: anywhere; }
  td:has(.buttons) { text-align: right; }
  .buttons { display: inline-flex; gap: 6px; }
  .method { color: var(--soft); font-size: 12px; }
  .tags { display: flex; flex-wrap: wrap; gap: 4px; white-space: normal; }
  .tags span { background: var(--fill); border-radius: 4px; padding: 0 6px; font-variant-numeric: tabular-nums; }
  .tags span.bad { background: var(--bad-fill); color: var(--bad); }
  .actions { display: flex; flex-wrap: wrap; gap: 8px; margin: 12px 0; }
  .actions[hidden] { display: none; }
  /* One block for each row. */
  @media (max-width: 700px) {
    astro-dev-toolbar-window { padding: 16px; }
    table, tbody { display: block; }
    thead { display: none; }
    tr:not([hidden]) { display: flex; flex-wrap: wrap; gap: 2px 12px; padding: 6px 0; border-top: 1px solid var(--line); }
    tr:not([hidden]):has(pre) { border: 0; padding-top: 0; }
    th, td { border: 0; padding: 0; }
    tbody th, td:has(.keys, .tags, pre) { width: 100%; }
    tbody .key { max-width: none; overflow-wrap: break-word; }
    td:has(.buttons) { margin-left: auto; }
  }
  button {
    font: inherit; font-size: 12px; color: var(--strong); background: var(--fill); border: 1px solid var(--line);
    border-radius: 5px; padding: 1px 8px; cursor: pointer;
  }
  button:hover { border-color: var(--soft); }
  button:focus-visible, pre:focus-visible { outline: 2px solid var(--focus); outline-offset: 1px; }
`;
