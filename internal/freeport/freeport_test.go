package freeport

import "testing"

// A port is given away once until its test has ended.
func TestAddressIsReserved(t *testing.T) {
	const port = "1" // no test is given it
	release, err := reserve(port)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reserve(port); err == nil {
		t.Error("given away twice")
	}
	release()
	again, err := reserve(port)
	if err != nil {
		t.Fatalf("after its test: %v", err)
	}
	again()
	if one, two := Address(t), Address(t); one == two {
		t.Errorf("%s twice", one)
	}
}
