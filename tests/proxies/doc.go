// Package proxies runs the configurations of docs/proxies.md in the proxies themselves, with Chromium in front and
// gpoll behind. The page's table is what its tests found.
package proxies
