package probe

func benchTargets() {}
