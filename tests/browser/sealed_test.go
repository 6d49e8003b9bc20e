package browser

import (
	"bytes"
	"encoding/base64"
	"testing"

	"github.com/corvuscrypto/gpoll"
	"github.com/corvuscrypto/gpoll/sealed"
)

// What a Go program seals a page opens, and the other way round; the server has not got the key.
func TestSealed(t *testing.T) {
	t.Parallel()
	heard := make(chan []byte, 1)
	w := newWorld(t, func(b *gpoll.Broadcaster) {
		b.OnMessage = func(_ *gpoll.Client, m gpoll.Message) { heard <- bytes.Clone(m.Data) }
	})
	key := bytes.Repeat([]byte("gpoll"), 7)[:sealed.KeySize]
	box, err := sealed.New(key)
	if err != nil {
		t.Fatal(err)
	}
	tab := w.listen(newProfile(t), nil)
	tab.eval(nil, `(async () => {
		const { Box } = await import("./poll/client/sealed.js");
		window.box = await Box.with(Uint8Array.from(atob(ARG), c => c.charCodeAt(0)));
		window.opened = new Promise(done => feed.addEventListener("message", done)).then(async e =>
			new TextDecoder().decode(await box.newOpener().open(e.topic, e.data)));
	})()`, base64.StdEncoding.EncodeToString(key))
	m := gpoll.Message{Topic: "news", Data: box.Seal("news", []byte("from Go"))}
	if _, err := w.b.Publish(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	var opened string
	tab.eval(&opened, "window.opened")
	if opened != "from Go" {
		t.Errorf("the page opens %q", opened)
	}
	tab.eval(nil, `box.seal("to the server", "from the page").then(data => feed.send(data))`)
	data, err := box.NewOpener().Open("to the server", <-heard)
	if err != nil || string(data) != "from the page" {
		t.Errorf("%q %v", data, err)
	}
}
