package health

// Checks returns the checks that a record is judged by, each once; nil if there is no such record.
func (m *Machine) Checks(source string) []CheckID {
	r := m.records[source]
	if r == nil {
		return nil
	}
	var ids []CheckID
	seen := map[CheckID]bool{}
	for _, s := range r.subjects {
		if !seen[s.check.id] {
			seen[s.check.id] = true
			ids = append(ids, s.check.id)
		}
	}
	return ids
}
