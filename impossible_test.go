package gpoll

// In the tests what cannot be stops them.
func init() { impossible = func(what string) { panic("gpoll: " + what) } }
