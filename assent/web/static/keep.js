// Nothing that somebody said is lost: drafts and answers lie in IndexedDB before the page moves on, and one tab at a
// time brings what waits to the server, in order, until the server has said that it has it.
import { uuid7 } from "./dom.js";

const STORES = ["drafts", "outbox", "returned", "sent", "skipped"];
const PATIENCE = 30_000; // after so long a request counts as lost
const SKIPS = 50; // skipped items that can be had back, and all of those with words
const NOTES = 150; // answers that are compared with the server's after a time without it

function opened(name) {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 2);
    request.onupgradeneeded = () =>
      STORES.filter((store) => !request.result.objectStoreNames.contains(store)).forEach((store) => request.result.createObjectStore(store));
    request.onblocked = () => reject(Object.assign(new Error("Another tab of this page is from before an update: close it, then reload this one."), { name: "Blocked" }));
    request.onsuccess = () => {
      request.result.onversionchange = () => request.result.close();
      resolve(request.result);
    };
    request.onerror = () => reject(request.error);
  });
}

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

// One at a time: across tabs where the browser can (it can on https and on this machine), else within this tab.
let last = Promise.resolve();
function alone(name, work) {
  if (navigator.locks) return navigator.locks.request(name, work);
  last = last.then(work, work);
  return last;
}

// A request that is given up after a while: a connection may be dead without saying so.
export async function send(path, body) {
  const control = new AbortController();
  const timer = setTimeout(() => control.abort(), PATIENCE);
  const post = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  try {
    const response = await fetch(path, { signal: control.signal, ...(body === undefined ? {} : post) });
    const json = response.status !== 204 && response.headers.get("content-type")?.includes("json");
    return { status: response.status, ok: response.ok, told: json ? await response.json() : {} };
  } catch {
    return { status: 0, ok: false, told: {} };
  } finally {
    clearTimeout(timer);
  }
}

export class Keep extends EventTarget {
  // `home` is the address of the run's API; `owner` whose words these are: another person's stay in their own drawer.
  constructor(home, owner) {
    super();
    this.home = home;
    this.name = `assent ${home} ${owner}`;
    this.tab = uuid7();
    this.state = { kind: "idle", waiting: 0, at: null };
    this.tries = 0;
    this.timer = null;
    this.apart = false; // whether the server could not be reached since notes were compared
    this.channel = new BroadcastChannel(this.name);
    this.channel.onmessage = ({ data }) => data.type === "state" || data.tab === this.tab ? this.#hear(data) : null;
    this.ready = opened(this.name).then((database) => {
      this.database = database;
    });
    addEventListener("online", () => this.drain(true));
  }

  async #all(store) {
    await this.ready;
    return done(this.database.transaction(store).objectStore(store).getAll());
  }

  async #change(stores, work, durability = "strict") {
    await this.ready;
    const transaction = this.database.transaction(stores, "readwrite", { durability });
    work(...stores.map((store) => transaction.objectStore(store)));
    return new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  }

  async draft(query) {
    await this.ready;
    const words = localStorage.getItem(`${this.name} ${query}`);
    if (words) await this.saveDraft(JSON.parse(words));
    const draft = await done(this.database.transaction("drafts").objectStore("drafts").get(query));
    return draft ?? (await done(this.database.transaction("skipped").objectStore("skipped").get(query)))?.draft;
  }

  saveDraft(draft) {
    localStorage.removeItem(`${this.name} ${draft.query}`);
    return this.#change(["drafts"], (drafts) => drafts.put(draft, draft.query), "relaxed");
  }

  // As the page goes: the database may not come to an end any more, and this does.
  lastWords(draft) {
    localStorage.setItem(`${this.name} ${draft.query}`, JSON.stringify(draft));
  }

  // Put an answer into the outbox, and return its id; once this resolves the answer outlives the tab.
  // `item` is what it answers, and `returned` the id of an answer that came back, which it stands for.
  async submit(answer, item = null, returned = "") {
    const id = uuid7(); // in the outbox, so that however often it is sent it is the same
    const entry = { id, path: "feedback", query: answer.query, body: { id, ...answer }, item, tab: this.tab };
    await this.#put(entry, returned);
    return id;
  }

  // Leave an item to others; what was written of it is kept, so that `unskip` brings both back.
  async skip(item, draft) {
    const id = uuid7();
    const old = (await this.skips()).slice(0, -SKIPS).filter((entry) => !entry.draft.note && !entry.draft.answer.text);
    await this.#put({ id, path: "skip", query: item.query, body: { queries: [item.query] }, tab: this.tab }, draft.returned, (skipped) => {
      skipped.put({ id, item, draft: { ...draft, returned: "" } }, item.query);
      old.forEach((entry) => skipped.delete(entry.item.query));
    });
  }

  // Skipped items with their drafts, the latest last.
  async skips() {
    return (await this.#all("skipped")).sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  async unskip({ item, draft }) {
    const { query } = item;
    await this.#put({ id: uuid7(), path: "unskip", query, body: { queries: [query] }, tab: this.tab }, "", (skipped, drafts) => {
      skipped.delete(query);
      drafts.put(draft, query);
    });
  }

  async #put(entry, returned, more = (skipped) => skipped.delete(entry.query)) {
    localStorage.removeItem(`${this.name} ${entry.query}`);
    await this.#change(["outbox", "drafts", "returned", "skipped"], (outbox, drafts, back, skipped) => {
      outbox.put(entry, entry.id);
      drafts.delete(entry.query);
      back.delete(returned);
      more(skipped, drafts);
    });
    this.drain(true);
  }

  waiting() {
    return this.#all("outbox");
  }

  // Answers that the server would not take, which are somebody's words all the same.
  returned() {
    return this.#all("returned");
  }

  #hear({ type, detail }) {
    if (type === "state") this.state = detail;
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // To the tab that it is about; the state is about all of them.
  #tell(type, detail, tab = this.tab) {
    if (type === "state" || tab !== this.tab) this.channel.postMessage({ type, detail, tab });
    if (type === "state" || tab === this.tab) this.#hear({ type, detail });
  }

  // Bring what waits to the server; many calls at once, in many tabs, are one.
  drain(now = false) {
    if (now) {
      clearTimeout(this.timer);
      this.tries = 0;
    }
    return alone(this.name, () => this.#drain()).catch((error) => {
      this.#tell("state", { kind: "offline", waiting: 1, why: String(error) });
      this.#later();
    });
  }

  #later() {
    clearTimeout(this.timer);
    const wait = Math.min(60, 2 ** this.tries) * (0.5 + Math.random());
    this.tries += 1;
    this.timer = setTimeout(() => this.drain(), wait * 1000);
  }

  async #drain() {
    let kept = false;
    if (this.apart && !(await this.#compare())) return this.#stuck({ status: 0 });
    for (let some = await this.waiting(); some.length; some = await this.waiting()) {
      const answers = some.filter((entry) => entry.path === "feedback").length;
      if (answers) this.#tell("state", { kind: "saving", waiting: answers });
      const [entry] = some; // the first by id, hence by time
      const { status, ok, told } = await send(`${this.home}/${entry.path}`, entry.body);
      if (ok && entry.path === "feedback") {
        if (told.id !== entry.id) throw new Error("the server answered for another id");
        await this.#change(["outbox", "sent"], (outbox, sent) => {
          outbox.delete(entry.id);
          sent.put(entry, entry.id);
        });
        kept = true;
        this.#tell("kept", { told, query: entry.query }, entry.tab);
      } else if (ok || (entry.path !== "feedback" && ![0, 401, 408, 429].includes(status) && status < 500)) {
        await this.#change(["outbox"], (outbox) => outbox.delete(entry.id));
      } else if ([0, 401, 408, 429].includes(status) || status >= 500) {
        return this.#stuck({ status });
      } else {
        const why = typeof told.detail === "string" ? told.detail : (told.detail?.message ?? `refused (${status})`);
        const back = { ...entry, why, before: told.detail?.before ?? "" };
        await this.#change(["outbox", "returned"], (outbox, returned) => {
          outbox.delete(entry.id);
          returned.put(back, entry.id);
        });
        kept = false;
        this.#tell("state", { kind: "rejected", waiting: answers - 1, why });
        this.#tell("returned", back, entry.tab);
      }
      this.tries = 0;
    }
    if (kept) this.#tell("state", { kind: "saved", waiting: 0, at: new Date().toTimeString().slice(0, 8) });
    else if (["offline", "sign in", "saving"].includes(this.state.kind)) this.#tell("state", { kind: "idle", waiting: 0 });
  }

  async #stuck({ status }) {
    const waiting = (await this.waiting()).filter((entry) => entry.path === "feedback").length;
    if (status === 401) return this.#tell("state", { kind: "sign in", waiting });
    this.apart = true;
    const why = status === 507 ? "the server's disk is full" : status ? "the server is busy" : "";
    this.#tell("state", { kind: "offline", waiting, why });
    this.#later();
  }

  // Compare notes: what the server has not, although it once said so, is sent again (its backup was restored, say).
  async #compare() {
    const { status, ok, told } = await send(`${this.home}/mine?count=200`);
    if (!ok) return status !== 0 && status < 500;
    const there = new Set(told.map((one) => one.id));
    const sent = (await this.#all("sent")).sort((a, b) => (a.id < b.id ? -1 : 1));
    const lost = sent.slice(-NOTES).filter((one) => !there.has(one.id));
    await this.#change(["outbox", "sent"], (outbox, old) => {
      lost.forEach((one) => outbox.put(one, one.id));
      sent.slice(0, -NOTES).forEach((one) => old.delete(one.id));
    });
    this.apart = false;
    return true;
  }

  // After a time without the server, or when the page opens: compare notes, and send what waits.
  reconcile() {
    this.apart = true;
    return this.drain(true);
  }
}
