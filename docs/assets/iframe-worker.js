// Pages that are opened as files may start no Worker, and the search of these pages is one. This stands in for it: a
// hidden frame, whose document has the same origin as the page, runs the script of the worker instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      this.frame.answered = data => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        if (typeof this.onmessage === "function") this.onmessage(event)
      }
      document.body.appendChild(this.frame)
      const inside = this.frame.contentWindow
      inside.postMessage = data => this.frame.answered(data)
      // One after the other, as a worker loads them.
      inside.importScripts = async (...urls) => {
        for (const each of urls) await this.load(each)
      }
      this.ready = this.load(url)
    }

    load(url) {
      const page = this.frame.contentDocument
      return new Promise((resolve, reject) => {
        const script = page.createElement("script")
        script.src = new URL(url, location.href)
        script.onload = resolve
        script.onerror = () => reject(new Error(`${url} cannot be loaded`))
        page.body.appendChild(script)
      })
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
