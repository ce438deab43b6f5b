// Records that version 1 or 2 of the outbox wrote, in the form of version 3. Nothing is dropped: judgements that wait,
// drafts and skipped tasks keep their content; only the names of their fields change.

const NAMES = { query: "task", answer: "judgement", shown: "display_order", seconds: "duration", note: "comment", at: "created_at", queries: "tasks" };
const PATHS = { feedback: "judgements" };

function rename(record) {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [NAMES[name] ?? name, value]));
}

// A draft, the body of a request, or a judgement as the server returned it.
export const upgradeDraft = rename;

function upgradeTask(task) {
  if (!task || !("query" in task)) return task;
  const { before, ...rest } = rename(task);
  return { ...rest, previous: before ? rename(before) : null };
}

function upgradeEntry(entry) {
  const { item, body, why, before, ...rest } = entry;
  const upgraded = { ...rename(rest), path: PATHS[entry.path] ?? entry.path, body: rename(body), item: upgradeTask(item) };
  return why === undefined ? upgraded : { ...upgraded, error: why, existing_id: before };
}

const UPGRADES = {
  drafts: upgradeDraft,
  outbox: upgradeEntry,
  returned: upgradeEntry,
  sent: upgradeEntry,
  skipped: ({ id, item, draft }) => ({ id, item: upgradeTask(item), draft: upgradeDraft(draft) }),
};

// Rewrite every record of the database within the transaction of its upgrade.
export function upgradeRecords(transaction) {
  for (const [name, upgrade] of Object.entries(UPGRADES)) {
    if (!transaction.objectStoreNames.contains(name)) continue;
    transaction.objectStore(name).openCursor().onsuccess = ({ target }) => {
      const cursor = target.result;
      if (!cursor) return;
      cursor.update(upgrade(cursor.value));
      cursor.continue();
    };
  }
}
