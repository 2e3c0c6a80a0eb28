// Package conformance is a table of what authorization servers do, each row with the outcome that is right for the user. It holds tests
// only: each runs a whole broker, with the built-in profile of a provider, against replies that the fixtures in testdata spell out.
//
// See README.md for how to write down what a provider surprised you with.
package conformance
