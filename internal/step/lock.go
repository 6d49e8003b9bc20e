package step

import "sync"

// A Mutex is a sync.Mutex whose waiters are durably blocked.
type Mutex struct {
	mu   sync.Mutex // guards the fields below; never held across a wait
	held bool
	wait []chan struct{} // in the order of their coming
}

// Lock is sync.Mutex.Lock.
func (m *Mutex) Lock() {
	Point()
	m.mu.Lock()
	if !m.held {
		m.held = true
		m.mu.Unlock()
	} else {
		turn := make(chan struct{})
		m.wait = append(m.wait, turn)
		m.mu.Unlock()
		<-turn
	}
	held.Add(1)
}

// TryLock is sync.Mutex.TryLock.
func (m *Mutex) TryLock() bool {
	Point()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held {
		return false
	}
	m.held = true
	held.Add(1)
	return true
}

// Unlock is sync.Mutex.Unlock. The goroutine that has waited longest gets the lock.
func (m *Mutex) Unlock() {
	Point()
	held.Add(-1)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case !m.held:
		panic("step: unlock of an unlocked Mutex by " + caller())
	case len(m.wait) == 0:
		m.held = false
	default:
		close(m.wait[0])
		m.wait = m.wait[1:]
	}
}

// An RWMutex is a sync.RWMutex whose waiters are durably blocked. Readers and writers come in their order.
type RWMutex struct {
	mu      sync.Mutex // guards the fields below; never held across a wait
	readers int
	writer  bool
	wait    []waiter
}

type waiter struct {
	turn   chan struct{}
	writes bool
}

// Lock is sync.RWMutex.Lock.
func (m *RWMutex) Lock() { m.lock(true) }

// RLock is sync.RWMutex.RLock.
func (m *RWMutex) RLock() { m.lock(false) }

func (m *RWMutex) lock(writes bool) {
	Point()
	m.mu.Lock()
	if len(m.wait) == 0 && m.takeLocked(writes) {
		m.mu.Unlock()
	} else {
		turn := make(chan struct{})
		m.wait = append(m.wait, waiter{turn, writes})
		m.mu.Unlock()
		<-turn
	}
	held.Add(1)
}

func (m *RWMutex) takeLocked(writes bool) bool {
	switch {
	case m.writer || writes && m.readers > 0:
		return false
	case writes:
		m.writer = true
	default:
		m.readers++
	}
	return true
}

// Unlock is sync.RWMutex.Unlock.
func (m *RWMutex) Unlock() {
	Point()
	held.Add(-1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.writer {
		panic("step: unlock of an unlocked RWMutex by " + caller())
	}
	m.writer = false
	m.nextLocked()
}

// RUnlock is sync.RWMutex.RUnlock.
func (m *RWMutex) RUnlock() {
	Point()
	held.Add(-1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.readers == 0 {
		panic("step: RUnlock of an RWMutex without readers by " + caller())
	}
	m.readers--
	m.nextLocked()
}

func (m *RWMutex) nextLocked() {
	for len(m.wait) > 0 && m.takeLocked(m.wait[0].writes) {
		close(m.wait[0].turn)
		m.wait = m.wait[1:]
	}
}
