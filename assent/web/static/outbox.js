// The outbox: drafts and judgements are in IndexedDB before the page moves on. One tab at a time sends what waits, in
// order, until the server has confirmed each judgement.
import { uuid7 } from "./dom.js";
import { upgradeDraft, upgradeRecords } from "./outbox_upgrade.js";

const VERSION = 3; // of the records; see outbox_upgrade.js
const STORES = ["drafts", "outbox", "returned", "sent", "skipped"];
const REQUEST_TIMEOUT = 30_000; // milliseconds after which a request counts as failed
const SKIPPED_LIMIT = 50; // skipped tasks that are kept; those with text are always kept
const RECONCILE_LIMIT = 150; // sent judgements that are compared with the server's after a time offline
const TEMPORARY = [0, 401, 408, 429]; // statuses after which a request is sent again; so is any from 500 on

function openDatabase(name) {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, VERSION);
    request.onupgradeneeded = ({ oldVersion, target }) => {
      STORES.filter((store) => !request.result.objectStoreNames.contains(store)).forEach((store) => request.result.createObjectStore(store));
      if (oldVersion > 0) upgradeRecords(target.transaction);
    };
    request.onblocked = () => reject(Object.assign(new Error("Another tab still runs an older version of this page. Close that tab, then reload this one."), { name: "Blocked" }));
    request.onsuccess = () => {
      request.result.onversionchange = () => request.result.close();
      resolve(request.result);
    };
    request.onerror = () => reject(request.error);
  });
}

const settled = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

// Run one piece of work at a time: across tabs where the browser has locks (on https and on localhost), else in this tab.
let lastWork = Promise.resolve();
function runExclusively(name, work) {
  if (navigator.locks) return navigator.locks.request(name, work);
  lastWork = lastWork.then(work, work);
  return lastWork;
}

const isTemporary = (status) => TEMPORARY.includes(status) || status >= 500;
const byId = (a, b) => (a.id < b.id ? -1 : 1); // ids are made in order, so this is the order of time

// Send a request with a time limit: a connection may be dead without an error. Status 0: no response.
export async function send(path, body) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), REQUEST_TIMEOUT);
  const post = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  try {
    const response = await fetch(path, { signal: controller.signal, ...(body === undefined ? {} : post) });
    const isJson = response.status !== 204 && response.headers.get("content-type")?.includes("json");
    return { status: response.status, ok: response.ok, data: isJson ? await response.json() : {} };
  } catch {
    return { status: 0, ok: false, data: {} };
  } finally {
    clearTimeout(timer);
  }
}

export class Outbox extends EventTarget {
  // `api` is the address of the run's API. `user` is the id of the signed-in user: each has a database of their own.
  constructor(api, user) {
    super();
    this.api = api;
    this.name = `assent ${api} ${user}`;
    this.tab = uuid7();
    this.state = { kind: "idle", waiting: 0, at: null };
    this.attempts = 0;
    this.timer = null;
    this.isUnreconciled = false; // the server could not be reached since the last reconciliation
    this.channel = new BroadcastChannel(this.name);
    this.channel.onmessage = ({ data }) => data.type === "state" || data.tab === this.tab ? this.#receive(data) : null;
    this.ready = openDatabase(this.name).then((database) => {
      this.database = database;
    });
    addEventListener("online", () => this.flush(true));
  }

  async #readAll(store) {
    await this.ready;
    return settled(this.database.transaction(store).objectStore(store).getAll());
  }

  async #write(stores, work, durability = "strict") {
    await this.ready;
    const transaction = this.database.transaction(stores, "readwrite", { durability });
    work(...stores.map((store) => transaction.objectStore(store)));
    return new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  }

  async readDraft(task) {
    await this.ready;
    const saved = localStorage.getItem(`${this.name} ${task}`);
    if (saved) await this.saveDraft(upgradeDraft(JSON.parse(saved)));
    const draft = await settled(this.database.transaction("drafts").objectStore("drafts").get(task));
    return draft ?? (await settled(this.database.transaction("skipped").objectStore("skipped").get(task)))?.draft;
  }

  saveDraft(draft) {
    localStorage.removeItem(`${this.name} ${draft.task}`);
    return this.#write(["drafts"], (drafts) => drafts.put(draft, draft.task), "relaxed");
  }

  // Save a draft as the page is left: IndexedDB may not finish any more, localStorage does.
  saveOnUnload(draft) {
    localStorage.setItem(`${this.name} ${draft.task}`, JSON.stringify(draft));
  }

  // Put a judgement into the outbox and return its id. Once this resolves, the judgement outlives the tab.
  // `item` is the task that it judges; `returned` the id of a refused judgement that it replaces.
  async submit(body, item = null, returned = "") {
    const id = uuid7(); // made once, so that the server can recognise a repeated post
    const entry = { id, path: "judgements", task: body.task, body: { id, ...body }, item, tab: this.tab };
    await this.#put(entry, returned);
    return id;
  }

  // Skip a task. Its draft is kept, so that `unskip` restores both.
  async skip(item, draft) {
    const id = uuid7();
    const old = (await this.skipped()).slice(0, -SKIPPED_LIMIT).filter((entry) => !entry.draft.comment && !entry.draft.judgement.text);
    await this.#put({ id, path: "skip", task: item.task, body: { tasks: [item.task] }, tab: this.tab }, draft.returned, (skipped) => {
      skipped.put({ id, item, draft: { ...draft, returned: "" } }, item.task);
      old.forEach((entry) => skipped.delete(entry.item.task));
    });
  }

  // Skipped tasks with their drafts, the latest last.
  async skipped() {
    return (await this.#readAll("skipped")).sort(byId);
  }

  async unskip({ item, draft }) {
    const { task } = item;
    await this.#put({ id: uuid7(), path: "unskip", task, body: { tasks: [task] }, tab: this.tab }, "", (skipped, drafts) => {
      skipped.delete(task);
      drafts.put(draft, task);
    });
  }

  async #put(entry, returned, update = (skipped) => skipped.delete(entry.task)) {
    localStorage.removeItem(`${this.name} ${entry.task}`);
    await this.#write(["outbox", "drafts", "returned", "skipped"], (outbox, drafts, returnedStore, skipped) => {
      outbox.put(entry, entry.id);
      drafts.delete(entry.task);
      returnedStore.delete(returned);
      update(skipped, drafts);
    });
    this.flush(true);
  }

  waiting() {
    return this.#readAll("outbox");
  }

  // Judgements that the server refused. They are kept until the user submits them again or skips the task.
  returned() {
    return this.#readAll("returned");
  }

  #receive({ type, detail }) {
    if (type === "state") this.state = detail;
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // Send an event to the tab that made the entry; a state goes to all tabs.
  #emit(type, detail, tab = this.tab) {
    if (type === "state" || tab !== this.tab) this.channel.postMessage({ type, detail, tab });
    if (type === "state" || tab === this.tab) this.#receive({ type, detail });
  }

  // Send what waits. Calls at the same time, also in other tabs, run one after the other.
  flush(now = false) {
    if (now) {
      clearTimeout(this.timer);
      this.attempts = 0;
    }
    return runExclusively(this.name, () => this.#flush()).catch((error) => {
      this.#emit("state", { kind: "offline", waiting: 1, error: String(error) });
      this.#retryLater();
    });
  }

  #retryLater() {
    clearTimeout(this.timer);
    const seconds = Math.min(60, 2 ** this.attempts) * (0.5 + Math.random());
    this.attempts += 1;
    this.timer = setTimeout(() => this.flush(), seconds * 1000);
  }

  async #flush() {
    let isSaved = false;
    if (this.isUnreconciled && !(await this.#reconcile())) return this.#pause({ status: 0 });
    for (let entries = await this.waiting(); entries.length; entries = await this.waiting()) {
      const count = entries.filter((entry) => entry.path === "judgements").length;
      if (count) this.#emit("state", { kind: "saving", waiting: count });
      const [entry] = entries; // the first by id, hence by time
      const { status, ok, data } = await send(`${this.api}/${entry.path}`, entry.body);
      if (ok && entry.path === "judgements") {
        await this.#confirm(entry, data);
        isSaved = true;
      } else if (!ok && isTemporary(status)) {
        return this.#pause({ status });
      } else if (ok || entry.path !== "judgements") {
        await this.#write(["outbox"], (outbox) => outbox.delete(entry.id));
      } else {
        await this.#return(entry, status, data, count - 1);
        isSaved = false;
      }
      this.attempts = 0;
    }
    if (isSaved) this.#emit("state", { kind: "saved", waiting: 0, at: new Date().toTimeString().slice(0, 8) });
    else if (["offline", "sign in", "saving"].includes(this.state.kind)) this.#emit("state", { kind: "idle", waiting: 0 });
  }

  async #confirm(entry, data) {
    if (data.id !== entry.id) throw new Error("the server confirmed another id");
    await this.#write(["outbox", "sent"], (outbox, sent) => {
      outbox.delete(entry.id);
      sent.put(entry, entry.id);
    });
    this.#emit("stored", { result: data, task: entry.task }, entry.tab);
  }

  // Keep a refused judgement with the server's reason, and give it back to the page.
  async #return(entry, status, data, waiting) {
    const error = typeof data.detail === "string" ? data.detail : (data.detail?.message ?? `refused (${status})`);
    const refused = { ...entry, error, existing_id: data.detail?.existing_id ?? "" };
    await this.#write(["outbox", "returned"], (outbox, returned) => {
      outbox.delete(entry.id);
      returned.put(refused, entry.id);
    });
    this.#emit("state", { kind: "rejected", waiting, error });
    this.#emit("returned", refused, entry.tab);
  }

  async #pause({ status }) {
    const waiting = (await this.waiting()).filter((entry) => entry.path === "judgements").length;
    if (status === 401) return this.#emit("state", { kind: "sign in", waiting });
    this.isUnreconciled = true;
    const error = status === 507 ? "the server disk is full" : status ? "the server is busy" : "";
    this.#emit("state", { kind: "offline", waiting, error });
    this.#retryLater();
  }

  // Send again what the server confirmed but no longer has, for instance because its backup was restored.
  async #reconcile() {
    const { status, ok, data } = await send(`${this.api}/judgements/mine?count=200`);
    if (!ok) return status !== 0 && status < 500;
    const stored = new Set(data.map((judgement) => judgement.id));
    const sent = (await this.#readAll("sent")).sort(byId);
    const lost = sent.slice(-RECONCILE_LIMIT).filter((entry) => !stored.has(entry.id));
    await this.#write(["outbox", "sent"], (outbox, sentStore) => {
      lost.forEach((entry) => outbox.put(entry, entry.id));
      sent.slice(0, -RECONCILE_LIMIT).forEach((entry) => sentStore.delete(entry.id));
    });
    this.isUnreconciled = false;
    return true;
  }

  // Reconcile and send what waits: after a time offline, or when the page opens.
  reconcile() {
    this.isUnreconciled = true;
    return this.flush(true);
  }
}
