# Completes command lines of haar in bash.
_haar() {
    local line="${COMP_LINE:0:COMP_POINT}" typed part found candidate IFS=$' \t\n'
    # The words as haar gets them: completion's own words end at : = @ as well.
    local -a words
    read -ra words <<< "$line"
    case "$line" in *[[:space:]]) words+=("") ;; esac
    typed="${words[${#words[@]} - 1]}"
    COMPREPLY=()
    if ! found="$("$1" complete -- "${words[@]:1}" 2> /dev/null)"; then
        compopt -o default 2> /dev/null
        return
    fi
    # Line by line: the shell would take signs in the explanations for patterns of files.
    while IFS= read -r candidate; do
        [ -n "$candidate" ] && COMPREPLY+=("${candidate%%$'\t'*}")
    done <<< "$found"
    # Bash replaces only the last of its own words.
    part="${typed%"$2"}"
    COMPREPLY=("${COMPREPLY[@]#"$part"}")
    case "${COMPREPLY[0]}" in
        *[=/]) [ "${#COMPREPLY[@]}" -eq 1 ] && compopt -o nospace 2> /dev/null ;;
    esac
}
complete -F _haar haar
