package steering

// failover chooses the first pool in the order written.
type failover struct{}

func (failover) choose(_ int, of []option, _ *Remembered) choice { return first(of[0]) }
