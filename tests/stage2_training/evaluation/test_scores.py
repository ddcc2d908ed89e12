from stage2_training.evaluation.scores import AP_NAMES, SCORE_NAMES, class_scores, format_scores, percents


def test_scores_are_percent_under_their_names_masks_and_boxes():
    values = (0.0836, 0.2093, 0.05, 0.0, 1.0, -1.0)
    scores = dict(zip(SCORE_NAMES, (*values, *reversed(values)), strict=True))
    names, masks, boxes = format_scores(scores).splitlines()
    assert names.split() == ["AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L"]
    assert masks.split() == ["masks", "8.4", "20.9", "5.0", "0.0", "100.0", "-"]
    assert boxes.split() == ["boxes", "-", "100.0", "0.0", "5.0", "20.9", "8.4"]
    assert len(names) == len(masks) == len(boxes)


def test_scores_of_a_run_without_boxes_and_of_class_agnostic_evaluation():
    scores = dict.fromkeys(AP_NAMES, 0.5)
    assert [line.split()[0] for line in format_scores(scores).splitlines()] == ["AP", "masks"]
    scores = dict.fromkeys((*SCORE_NAMES, "AR@20", "box_AR@20"), 0.5)
    names, *rows = format_scores(scores).splitlines()
    assert names.split()[-1] == "AR@20"
    assert [len(row.split()) for row in rows] == [8, 8]


def test_scores_of_a_detector_without_masks():
    scores = {f"box_{name}": 0.5 for name in (*AP_NAMES, "AR@20")}
    names, boxes = format_scores(scores).splitlines()
    assert names.split() == [*AP_NAMES, "AR@20"]
    assert boxes.split() == ["boxes", *["50.0"] * 7]


def test_scores_of_no_objects_are_a_dash():
    assert percents({"AP": 0.125, "AP_S": -1.0, "box_AP": 1.0}, ("AP", "AP_S")) == ["12.5", "-"]
    assert percents({"AP": 0.125, "box_AP": 1.0}, ("AP",), "box_") == ["100.0"]


def test_scores_of_each_class_stand_under_its_name():
    scores = {"AP": 0.4, "AP of cat": 0.5, "AP of a box_AP of b": -1.0, "box_AP": 0.1, "box_AP of cat": 0.25}
    assert class_scores(scores) == {"cat": {"AP": 0.5, "box_AP": 0.25}, "a box_AP of b": {"AP": -1.0}}
    assert class_scores(dict.fromkeys(SCORE_NAMES, 0.5)) == {}
