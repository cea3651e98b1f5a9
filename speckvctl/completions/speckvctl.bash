# SPDX-License-Identifier: MIT
# Completion of speckvctl for bash: source this, or put it into a folder of bash-completion as "speckvctl".
_speckvctl() {
	local line=${COMP_LINE:0:COMP_POINT} word='' index typed IFS=$'\n'
	[[ $line == *[[:space:]] ]] || word=${line##*[[:space:]]}
	read -ra typed -d '' <<<"${line//[[:space:]]/$'\n'}"
	index=${#typed[@]}
	[[ ! $word ]] || ((index -= 1))
	COMPREPLY=($(COMP_WORDS="$line" COMP_CWORD=$index \
		_SPECKVCTL_COMPLETE=complete_bash "$1" 2>/dev/null))
	# bash counts what stands behind a colon as a word of its own
	[[ $COMP_WORDBREAKS == *:* && $word == *:* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*:}"}"}")
}
complete -o default -F _speckvctl speckvctl
