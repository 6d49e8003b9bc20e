// Package stacks runs the three transports inside the routers and the middleware that people use, in their real
// releases. The tables of docs/frameworks.md are what its tests found.
package stacks
