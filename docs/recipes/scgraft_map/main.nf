process SCGRAFT_MAP {
    tag "$meta.id"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"

    input:
    tuple val(meta), path(query)
    val reference

    output:
    tuple val(meta), path("${prefix}")             , emit: mapped
    tuple val(meta), path("${prefix}/labels.csv*") , emit: labels
    tuple val(meta), path("${prefix}/report.html") , emit: report
    path "versions.yml"                            , emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    scgraft -q map ${query} --reference ${reference} --out ${prefix} ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        scgraft: \$(scgraft --version | sed 's/.* //')
    END_VERSIONS
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir ${prefix}
    touch ${prefix}/labels.csv ${prefix}/report.html

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        scgraft: \$(scgraft --version | sed 's/.* //')
    END_VERSIONS
    """
}
