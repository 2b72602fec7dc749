// A browser loads no worker from a file. For the search of a site that is opened as files, a frame
// stands in: it runs the script of the worker, and messages are handed over as events.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inside = frame.contentWindow;
      this.inside.postMessage = (data) => this.tell(this, data);
      this.inside.importScripts = (...urls) => Promise.all(urls.map((one) => this.load(one)));
      this.load(url).then(() => {
        const waiting = this.waiting;
        this.waiting = null;
        waiting.forEach((data) => this.tell(this.inside, data));
      });
    }

    load(url) {
      return new Promise((done, failed) => {
        const script = this.inside.document.createElement("script");
        script.onload = done;
        script.onerror = failed;
        script.src = new URL(url, location).href;
        this.inside.document.body.append(script);
      });
    }

    tell(to, data) {
      setTimeout(() => to.dispatchEvent(new MessageEvent("message", { data })));
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.tell(this.inside, data);
    }

    terminate() {}
  };
