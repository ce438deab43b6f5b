// Nothing that somebody said is lost: drafts and answers lie in IndexedDB before the page moves on, and one tab at a
// time brings answers from there to the server, in order, until the server has said that it has them.

const STORES = ["drafts", "outbox", "returned", "sent"];

function opened(name) {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => STORES.forEach((store) => request.result.createObjectStore(store));
    request.onsuccess = () => resolve(request.result);
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

export class Keep extends EventTarget {
  // `home` is the address of the run's API; `owner` whose words these are: another person's stay in their own drawer.
  constructor(home, owner) {
    super();
    this.home = home;
    this.name = `assent ${home} ${owner}`;
    this.state = { kind: "idle", waiting: 0, at: null };
    this.tries = 0;
    this.timer = null;
    this.channel = new BroadcastChannel(this.name);
    this.channel.onmessage = (event) => this.#show(event.data, false);
    this.ready = opened(this.name).then((database) => {
      this.database = database;
    });
    addEventListener("online", () => this.drain(true));
  }

  async #all(store) {
    await this.ready;
    return done(this.database.transaction(store).objectStore(store).getAll());
  }

  async #change(stores, work) {
    await this.ready;
    const transaction = this.database.transaction(stores, "readwrite", { durability: "strict" });
    work(...stores.map((store) => transaction.objectStore(store)));
    return new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  }

  async draft(query) {
    await this.ready;
    return done(this.database.transaction("drafts").objectStore("drafts").get(query));
  }

  saveDraft(draft) {
    return this.#change(["drafts"], (drafts) => drafts.put(draft, draft.query));
  }

  dropDraft(query) {
    return this.#change(["drafts"], (drafts) => drafts.delete(query));
  }

  // Once this resolves the answer outlives the tab.
  async submit(answer) {
    await this.#change(["outbox", "drafts"], (outbox, drafts) => {
      outbox.put(answer, answer.id);
      drafts.delete(answer.query);
    });
    this.drain(true);
  }

  waiting() {
    return this.#all("outbox");
  }

  returned() {
    return this.#all("returned");
  }

  forget(id) {
    return this.#change(["returned"], (returned) => returned.delete(id));
  }

  #show(state, tell = true) {
    this.state = state;
    if (tell) this.channel.postMessage(state);
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }

  // Bring what waits to the server; many calls at once, in many tabs, are one.
  drain(now = false) {
    if (now) {
      clearTimeout(this.timer);
      this.tries = 0;
    }
    this.draining = alone(this.name, () => this.#drain()).catch((error) => {
      this.#show({ kind: "offline", waiting: 1, why: String(error) });
      this.#later();
    });
    return this.draining;
  }

  #later() {
    clearTimeout(this.timer);
    const wait = Math.min(60, 2 ** this.tries) * (0.5 + Math.random());
    this.tries += 1;
    this.timer = setTimeout(() => this.drain(), wait * 1000);
  }

  async #drain() {
    let kept = null;
    for (let some = await this.waiting(); some.length; some = await this.waiting()) {
      some.sort((a, b) => (a.id < b.id ? -1 : 1));
      const { item, ...answer } = some[0];
      this.#show({ kind: "saving", waiting: some.length });
      let response;
      try {
        response = await fetch(`${this.home}/feedback`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify(answer),
        });
      } catch {
        this.#show({ kind: "offline", waiting: some.length });
        return this.#later();
      }
      const told = await response.json().catch(() => ({}));
      if (response.ok) {
        if (told.id !== answer.id) throw new Error("the server answered for another id");
        await this.#change(["outbox", "sent"], (outbox, sent) => {
          outbox.delete(answer.id);
          sent.put({ id: answer.id, query: answer.query, answer: some[0] }, answer.id);
        });
        this.tries = 0;
        kept = told;
        this.dispatchEvent(new CustomEvent("kept", { detail: { told, answer } }));
      } else if (response.status === 401) {
        return this.#show({ kind: "sign in", waiting: some.length });
      } else if (response.status >= 500 || response.status === 429 || response.status === 408) {
        const full = response.status === 507;
        this.#show({ kind: "offline", waiting: some.length, why: full ? "the server's disk is full" : "the server is busy" });
        return this.#later();
      } else {
        const detail = told.detail ?? response.statusText;
        const why = typeof detail === "string" ? detail : detail.message;
        const back = { ...some[0], why, before: detail.before ?? "" };
        await this.#change(["outbox", "returned"], (outbox, returned) => {
          outbox.delete(answer.id);
          returned.put(back, answer.id);
        });
        this.#show({ kind: "rejected", waiting: some.length - 1, why });
        this.dispatchEvent(new CustomEvent("returned", { detail: back }));
        kept = null;
      }
    }
    if (kept) this.#show({ kind: "saved", waiting: 0, at: new Date().toLocaleTimeString() });
    else if (["offline", "sign in", "saving"].includes(this.state.kind)) this.#show({ kind: "idle", waiting: 0 });
    await this.#trim();
  }

  // Compare notes: what the server has not, although it once said so, is sent again (a restored backup, say).
  async reconcile() {
    const response = await fetch(`${this.home}/mine?count=200`);
    if (!response.ok) return;
    const there = new Set((await response.json()).map((one) => one.id));
    const sent = await this.#all("sent");
    const lost = sent.filter((one) => !there.has(one.id)).slice(-150);
    if (lost.length)
      await this.#change(["outbox"], (outbox) => lost.forEach((one) => outbox.put(one.answer, one.id)));
    await this.drain(true);
  }

  async #trim() {
    const sent = await this.#all("sent");
    const old = sent.map((one) => one.id).sort().slice(0, -150);
    if (old.length) await this.#change(["sent"], (store) => old.forEach((id) => store.delete(id)));
  }
}
