package browser

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if chromium.browser != nil {
		chromium.end()
	}
	os.Exit(code)
}
