// Package browser tests the browser client in Chromium, against a server in this process whose ways a test can block,
// buffer and cut.
//
// testdata/driver.mjs drives the browser by playwright-core. testdata/page.js is the page: it listens and writes down
// what it saw, for the checker of gpolltest.
package browser
