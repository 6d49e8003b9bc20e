package js

import "testing"

// TestSize holds the core to 6,000 bytes as it is served.
func TestSize(t *testing.T) {
	const most = 6000
	n := len(Core().Gzip)
	t.Logf("the core has %d bytes, %d compressed", len(Core().Text), n)
	if n > most {
		t.Errorf("the core has %d bytes as it is served, more than %d", n, most)
	}
	for _, name := range append(Parts(), Modules()...) {
		t.Logf("%s has %d bytes, %d compressed", name, len(Part(name).Text), len(Part(name).Gzip))
	}
}
