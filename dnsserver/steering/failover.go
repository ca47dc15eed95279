package steering

// failover chooses the first pool in the order written.
type failover struct{ everywhere }

func (failover) choose(_ int, of []option, _ *Remembered) choice { return first(of[0]) }
