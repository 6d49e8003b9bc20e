package step

import "sync/atomic"

// A Bool is an atomic.Bool with a point before each operation. So are the others.
type Bool struct{ v atomic.Bool }

func (x *Bool) Load() bool                    { Point(); return x.v.Load() }
func (x *Bool) Store(v bool)                  { Point(); x.v.Store(v) }
func (x *Bool) Swap(v bool) bool              { Point(); return x.v.Swap(v) }
func (x *Bool) CompareAndSwap(o, n bool) bool { Point(); return x.v.CompareAndSwap(o, n) }

// QuietLoad has no point.
func (x *Bool) QuietLoad() bool { return x.v.Load() }

// An Int32 is an atomic.Int32.
type Int32 struct{ v atomic.Int32 }

func (x *Int32) Load() int32                    { Point(); return x.v.Load() }
func (x *Int32) Store(v int32)                  { Point(); x.v.Store(v) }
func (x *Int32) Add(d int32) int32              { Point(); return x.v.Add(d) }
func (x *Int32) Swap(v int32) int32             { Point(); return x.v.Swap(v) }
func (x *Int32) CompareAndSwap(o, n int32) bool { Point(); return x.v.CompareAndSwap(o, n) }
func (x *Int32) Or(v int32) int32               { Point(); return x.v.Or(v) }
func (x *Int32) And(v int32) int32              { Point(); return x.v.And(v) }

// An Int64 is an atomic.Int64.
type Int64 struct{ v atomic.Int64 }

func (x *Int64) Load() int64                    { Point(); return x.v.Load() }
func (x *Int64) Store(v int64)                  { Point(); x.v.Store(v) }
func (x *Int64) Add(d int64) int64              { Point(); return x.v.Add(d) }
func (x *Int64) Swap(v int64) int64             { Point(); return x.v.Swap(v) }
func (x *Int64) CompareAndSwap(o, n int64) bool { Point(); return x.v.CompareAndSwap(o, n) }

// QuietStore and QuietLoad have no point.
func (x *Int64) QuietStore(v int64) { x.v.Store(v) }
func (x *Int64) QuietLoad() int64   { return x.v.Load() }

// A Uint32 is an atomic.Uint32.
type Uint32 struct{ v atomic.Uint32 }

func (x *Uint32) Load() uint32                    { Point(); return x.v.Load() }
func (x *Uint32) Store(v uint32)                  { Point(); x.v.Store(v) }
func (x *Uint32) Add(d uint32) uint32             { Point(); return x.v.Add(d) }
func (x *Uint32) Swap(v uint32) uint32            { Point(); return x.v.Swap(v) }
func (x *Uint32) CompareAndSwap(o, n uint32) bool { Point(); return x.v.CompareAndSwap(o, n) }
func (x *Uint32) Or(v uint32) uint32              { Point(); return x.v.Or(v) }
func (x *Uint32) And(v uint32) uint32             { Point(); return x.v.And(v) }

// A Uint64 is an atomic.Uint64.
type Uint64 struct{ v atomic.Uint64 }

func (x *Uint64) Load() uint64                    { Point(); return x.v.Load() }
func (x *Uint64) Store(v uint64)                  { Point(); x.v.Store(v) }
func (x *Uint64) Add(d uint64) uint64             { Point(); return x.v.Add(d) }
func (x *Uint64) Swap(v uint64) uint64            { Point(); return x.v.Swap(v) }
func (x *Uint64) CompareAndSwap(o, n uint64) bool { Point(); return x.v.CompareAndSwap(o, n) }

// A Pointer is an atomic.Pointer.
type Pointer[T any] struct{ v atomic.Pointer[T] }

func (x *Pointer[T]) Load() *T                    { Point(); return x.v.Load() }
func (x *Pointer[T]) Store(v *T)                  { Point(); x.v.Store(v) }
func (x *Pointer[T]) Swap(v *T) *T                { Point(); return x.v.Swap(v) }
func (x *Pointer[T]) CompareAndSwap(o, n *T) bool { Point(); return x.v.CompareAndSwap(o, n) }
