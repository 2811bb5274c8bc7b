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

function createPanel(): { window: HTMLElement; refresh(): Promise<void> } {
  const summary = element('p', { className: 'summary' });
  const status = element('p', { className: 'status', role: 'status' });
  const entries = element('div');
  const requests = element('div');
  const actions = element('div', { className: 'actions' });

  /** Does something, then shows what has become of the session. */
  const act = async (question: ToolbarQuestion, done: string): Promise<void> => {
    await attempt(async () => {
      await ask(question);
      await refresh();
      status.textContent = done;
    });
  };
  const attempt = async (work: () => Promise<void>): Promise<void> => {
    status.textContent = '';
    status.classList.remove('failed');
    try {
      await work();
    } catch (error) {
      status.textContent = error instanceof Error ? error.message : String(error);
      status.classList.add('failed');
    }
  };

  const refresh = (): Promise<void> =>
    attempt(async () => {
      const { session, hasCookie, requests: shown } = (await ask({ action: 'show' })) as ShownSession;
      summary.replaceChildren(...summaryOf(session, hasCookie));
      entries.replaceChildren(...(session ? [entriesTable(session.entries, act, attempt)] : []));
      requests.replaceChildren(requestsTable(shown));
      actions.hidden = session === null;
    });

  actions.append(
    toolbarButton('Regenerate', 'gray', 'Gives the session a new id, and keeps its values.', () =>
      act({ action: 'regenerate' }, 'The session has a new id.'),
    ),
    toolbarButton('Expire now', 'gray', 'Lets all values expire. The browser keeps its cookie.', () =>
      act({ action: 'expire' }, 'All values have expired.'),
    ),
    toolbarButton('Destroy', 'red', 'Destroys the session and removes its cookie, like a sign-out.', () =>
      act({ action: 'destroy' }, 'The session is destroyed.'),
    ),
  );

  const header = element('header');
  header.append(element('h1', { textContent: 'Session' }), button('Refresh', 'Refresh', refresh));
  const window = element('astro-dev-toolbar-window');
  const body = element('div', { className: 'body' });
  body.append(summary, entries, actions, status, element('h2', { textContent: 'Last requests' }), requests);
  window.append(header, body);
  return { window, refresh };
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
    return [
      hasCookie
        ? 'The session of this cookie does not exist: it has expired, or was destroyed.'
        : 'This browser has no session yet.',
    ];
  }
  const handle = element('code', { textContent: session.handle, title: 'Identifies the session. It is not the id.' });
  const ends = session.expires ? ['expires ', time(session.expires)] : ['has no known expiry'];
  return [handle, ' ', ...ends];
}

type Act = (question: ToolbarQuestion, done: string) => Promise<void>;
type Attempt = (work: () => Promise<void>) => Promise<void>;

function entriesTable(entries: ShownEntry[], act: Act, attempt: Attempt): Node {
  if (entries.length === 0) return element('p', { className: 'empty', textContent: 'The session has no values.' });
  const rows = entries.map(({ key, type, bytes, expires }) => {
    const value = element('td', { className: 'value' });
    const show = button('Show', `Show the value of ${key}`, () =>
      attempt(async () => {
        const { value: text } = (await ask({ action: 'reveal', key })) as { value: string };
        value.replaceChildren(element('pre', { textContent: text, tabIndex: 0 }));
      }),
    );
    show.textContent = '••••••';
    value.append(show);
    const remove = button('Delete', `Delete ${key}`, () => act({ action: 'delete', key }, `${key} is deleted.`));
    return row([
      element('th', { textContent: key, scope: 'row' }),
      value,
      type,
      sizeText(bytes),
      expires ? time(expires) : 'with the session',
      remove,
    ]);
  });
  return table('Values', ['Key', 'Value', 'Type', 'Size', 'Expires', ''], rows);
}

function requestsTable(requests: ShownRequest[]): Node {
  if (requests.length === 0) {
    return element('p', { className: 'empty', textContent: 'No request of this session has asked the backend yet.' });
  }
  const rows = requests.slice(0, SHOWN_REQUESTS).map(({ method, path, at, operations, events }) => {
    const asked = element('span', { className: 'tags' });
    for (const { operation, ms, failed } of operations) {
      const text = `${VERBS[operation] ?? operation}${ms === undefined ? '' : ` ${ms.toFixed(1)} ms`}`;
      asked.append(element('span', { textContent: failed ? `${text}, failed` : text, className: failed ? 'bad' : '' }));
    }
    for (const event of events)
      asked.append(element('span', { textContent: EVENTS[event] ?? event, className: 'bad' }));
    const request = element('th', { scope: 'row' });
    request.append(element('span', { className: 'method', textContent: method }), ` ${path}`);
    return row([request, new Date(at).toLocaleTimeString(), asked]);
  });
  return table('Last requests', ['Request', 'At', 'Backend'], rows);
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

function row(cells: (Node | string)[]): Node {
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
  .status:empty { display: none; }
  .status { color: var(--strong); }
  .status.failed { color: var(--bad); }
  code, pre { font: 12px/1.5 ui-monospace, Menlo, Consolas, monospace; color: var(--text); }
  code { background: var(--fill); border-radius: 4px; padding: 2px 5px; }
  pre { margin: 0; max-height: 140px; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
  table { width: 100%; border-collapse: collapse; margin: 8px 0; }
  th, td { text-align: left; vertical-align: top; padding: 6px 12px 6px 0; border-top: 1px solid var(--line); font-weight: 400; }
  td:last-child { padding-right: 0; }
  thead th { border: 0; color: var(--soft); font-size: 12px; padding-bottom: 4px; }
  tbody th { color: var(--strong); font-weight: 500; overflow-wrap: anywhere; }
  tbody td { white-space: nowrap; }
  tbody td:has(.tags) { width: 55%; white-space: normal; }
  tbody td.value { white-space: normal; }
  .values td:last-child { text-align: right; }
  .method { color: var(--soft); font-size: 12px; }
  .tags { display: flex; flex-wrap: wrap; gap: 4px; }
  .tags span { background: var(--fill); border-radius: 4px; padding: 0 6px; font-variant-numeric: tabular-nums; }
  .tags span.bad { background: var(--bad-fill); color: var(--bad); white-space: normal; }
  .actions { display: flex; flex-wrap: wrap; gap: 8px; margin: 12px 0; }
  .actions[hidden] { display: none; }
  button {
    font: inherit; font-size: 12px; color: var(--strong); background: var(--fill); border: 1px solid var(--line);
    border-radius: 5px; padding: 1px 8px; cursor: pointer;
  }
  button:hover { border-color: var(--soft); }
  button:focus-visible, pre:focus-visible { outline: 2px solid var(--focus); outline-offset: 1px; }
`;
