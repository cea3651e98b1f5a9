#compdef speckvctl
# SPDX-License-Identifier: MIT
# Completion of speckvctl for zsh: put it into a folder of $fpath as "_speckvctl".
_speckvctl() {
	local -a found
	found=("${(@f)$(COMP_WORDS="${words[1,CURRENT]}" COMP_CWORD=$((CURRENT - 1)) \
		_SPECKVCTL_COMPLETE=complete_bash speckvctl 2>/dev/null)}")
	if [[ -n ${found[1]} ]]; then compadd -- $found; else _files; fi
}
if [[ $funcstack[1] == _speckvctl ]]; then _speckvctl "$@"; else compdef _speckvctl speckvctl; fi
