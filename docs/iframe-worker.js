// A page that is read from a file may start no worker: its search runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inner = frame.contentWindow;
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.inner = new Promise((ready, fail) => {
        const script = inner.document.createElement("script");
        script.onload = () => ready(inner);
        script.onerror = fail;
        script.src = new URL(url, location.href).href;
        inner.document.body.append(script);
      });
    }

    postMessage(data) {
      this.inner.then((inner) => inner.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
