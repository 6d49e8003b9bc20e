// Package stacks runs the three transports inside the routers and the middleware that people use, in their real releases: every cell of the tables
// in docs/frameworks.md is a test here.
package stacks
