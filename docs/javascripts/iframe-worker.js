// Browsers refuse workers in pages that were opened from a disk. There, this class runs the search in a frame.
if (location.protocol === "file:") {
  const load = (scope, url) =>
    new Promise((resolve, reject) => {
      const script = scope.document.createElement("script");
      script.src = url;
      script.onload = resolve;
      script.onerror = reject;
      scope.document.body.appendChild(script);
    });

  // Like a worker's, messages arrive after the code that sends them.
  const send = (target, data) => setTimeout(() => target.dispatchEvent(new MessageEvent("message", { data })));

  globalThis.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const scope = this.frame.contentWindow;
      scope.document.open();
      scope.document.write("<!doctype html><body></body>");
      scope.document.close();
      scope.postMessage = (data) => send(this, data);
      scope.importScripts = (...urls) => urls.reduce((last, next) => last.then(() => load(scope, next)), Promise.resolve());
      this.ready = load(scope, url).then(() => scope);
    }

    postMessage(data) {
      this.ready.then((scope) => send(scope, data));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
